"""The program that a UR robot runs for our driver, in URScript: it follows the joints in its registers.

Registers, of the range that is meant for clients of the real-time data exchange:

    input_double_register_24 … 29   joints to go to [rad]
    input_int_register_24           count of commands; 0: none yet
    input_int_register_25           session; anything but the program's own ends it
    output_int_register_24          last command that was obeyed
    output_int_register_25          session, once the program is ready

Nothing moves before the first command. From then on the robot's own watchdog ends the program, and the robot stops
by itself, when commands stop coming.

Source: Universal Robots, "The URScript programming language", e-Series.
"""

LOOKAHEADS, GAINS = (0.03, 0.2), (100.0, 2000.0)
"""What servoj takes: lookahead time [s] and gain."""
PATIENCE = 10.0
"""How long the program waits for the first command [s]: our choice."""
LEAP = 0.2
"""Farthest from the last target that a target is believed [rad]: our choice; what the greatest velocity reaches while
the watchdog still waits."""
DECELERATION = 6.0
"""Of the joints when the session ends [rad/s^2]: our choice, as the limit of acceleration."""
TARGETS = tuple(f"input_double_register_{24 + joint}" for joint in range(6))
COUNT, SESSION = "input_int_register_24", "input_int_register_25"
OBEYED, READY = "output_int_register_24", "output_int_register_25"

PROGRAM = """\
def alula_servo():
  session = {session}
  patience = {patience}
  leap = {leap}
  last = get_target_joint_positions()
  ready = False
  while (not ready) or (read_input_integer_register(24) == 0):
    mine = (read_input_integer_register(25) == session)
    if mine and (not ready):
      write_output_integer_register(24, 0)
      write_output_integer_register(25, session)
      ready = True
    end
    patience = patience - get_steptime()
    if (patience < 0) or (ready and (not mine)):
      halt
    end
    sync()
  end
  rtde_set_watchdog("input_int_register_24", {rate}, "stop")
  while read_input_integer_register(25) == session:
    count = read_input_integer_register(24)
    q = last
    i = 0
    while i < 6:
      q[i] = read_input_float_register(24 + i)
      if (q[i] - last[i] > leap) or (last[i] - q[i] > leap):
        textmsg("alula: target is too far from the one before, joint ", i)
        halt
      end
      i = i + 1
    end
    servoj(q, t=get_steptime(), lookahead_time={lookahead}, gain={gain})
    write_output_integer_register(24, count)
    last = q
  end
  rtde_set_watchdog("input_int_register_24", {rate}, "ignore")
  stopj({deceleration})
end
"""


def program(session: int, watchdog: float, lookahead: float, gain: float) -> str:
    """The program's text.

    Args:
        session: Number above 0 that the registers must hold.
        watchdog: The robot stops when it has heard nothing for so long [s].
        lookahead: Time over which targets are smoothed [s].
        gain: Of following them.
    """
    return PROGRAM.format(
        session=session,
        patience=PATIENCE,
        leap=LEAP,
        rate=round(1 / watchdog, 3),
        lookahead=lookahead,
        gain=gain,
        deceleration=DECELERATION,
    )

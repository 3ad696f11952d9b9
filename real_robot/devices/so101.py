"""TheRobotStudio's SO-100 and SO-101: six STS3215 servos on one serial bus.

An STS has no watchdog: when its controller dies it keeps its last goal, under power. Goals are never farther ahead
than the governor's next step, so it stops where it was about to be; its torque is limited from activation on.
Nor do its answers say when they were made: one that is later than the rest of its period counts as the next one's.

Sources:
    URDF: TheRobotStudio/SO-ARM100, Simulation/SO101/so101_new_calib.urdf (limits of the joints).
"""

import numpy as np

from alula.real_robot.codecs import feetech
from alula.real_robot.codecs.feetech import Register
from alula.real_robot.codecs.servo import Reply
from alula.real_robot.contract import Grip, Limits
from alula.real_robot.devices.calibration import COUNTS_PER_TURN
from alula.real_robot.devices.servo_arm import RESTARTED, ServoArm
from alula.real_robot.devices.servos import Arm, Family, Servo

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
SERVOS = (1, 2, 3, 4, 5, 6)
LOW = (-1.91986, -1.74533, -1.69, -1.65806, -2.74385, -0.17453)
HIGH = (1.91986, 1.74533, 1.69, 1.65806, 2.84121, 1.74533)
"""Of the joints [rad] (URDF)."""
VELOCITY, ACCELERATION, JERK = 3.0, 40.0, 3000.0
"""Limits of motion [rad/s, rad/s^2, rad/s^3]: our choice, with which a policy carries over from simulation; the servo
does 4.7 rad/s without load, and by our estimate its stall torque turns the outstretched arm at 60 rad/s^2."""
MARGIN = 0.02
"""Kept from the ends of the joints [rad]: our choice."""
FOLLOWING = (*(5 * (0.3,)), np.inf)
"""Largest distance from the commands of the last 0.1 s [rad]: our choice, far above that of the emulated arm in free
motion, so that a payload may bend a real one, and as far as it may press; the gripper presses what it holds."""
GRIPPER = (-0.13, 1.70)
"""Its angle with the jaws together, and as far apart as they go in use [rad]: our choice, inside its ends."""
RATE = 50.0
BAUD = 1_000_000
TORQUE_LIMIT = 500
"""Share of the stall torque [0.1 %]: our choice, enough to carry the arm, too little to hurt."""
SERVO_RAMP = 254
"""Acceleration of the servo's own ramp [100 count/s^2]: its greatest; the governor's is far below."""

STS = Family(
    codec=feetech,
    baud=BAUD,
    model=Register.MODEL,
    homing_offset=Register.HOMING_OFFSET,
    homing_sign=-1,
    torque=Register.TORQUE_ENABLE,
    goal=Register.GOAL_POSITION,
    position=Register.POSITION,
    velocity=Register.VELOCITY,
    load=Register.LOAD,
    velocity_unit=2 * np.pi / COUNTS_PER_TURN,
    unlock={Register.LOCK: 0},
    lock={Register.LOCK: 1},
)


def limits(following: tuple[float, ...] = FOLLOWING) -> Limits:
    """Of an arm of this size."""
    velocity, acceleration, jerk = ((value,) * len(JOINTS) for value in (VELOCITY, ACCELERATION, JERK))
    return Limits(LOW, HIGH, velocity, acceleration, jerk, MARGIN, following)


class SO101(ServoArm):
    """Driver of the arm."""

    watched = (Register.TORQUE_ENABLE,)
    arm = Arm(
        name="so101",
        description=f"STS3215 (model {feetech.MODEL_STS3215}) on numbers 1 to {len(SERVOS)}",
        servos=tuple(
            Servo(joint, number, feetech.MODEL_STS3215, load=0.001)
            for joint, number in zip(JOINTS, SERVOS, strict=True)
        ),
        family=STS,
        limits=limits(),
        grip=Grip(len(JOINTS) - 1, *GRIPPER),
        zero_pose="every joint in the middle of its range, but the gripper's jaws 10 degrees apart",
        rate=RATE,
        settings={Register.MODE: dict.fromkeys(SERVOS, 0)},
        preparation={
            Register.TORQUE_LIMIT: dict.fromkeys(SERVOS, TORQUE_LIMIT),
            Register.ACCELERATION: dict.fromkeys(SERVOS, SERVO_RAMP),
        },
        device_watchdog=None,
    )

    def complaints(self, number: int, reply: Reply) -> tuple[str, ...]:
        """See `ServoArm.complaints`."""
        limp = self.active and self.watched_value(Register.TORQUE_ENABLE, reply) == 0
        return (*feetech.complaints(reply.alerts), *((RESTARTED,) if limp else ()))

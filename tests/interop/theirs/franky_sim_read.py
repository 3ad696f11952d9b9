"""What franky-sim makes of a state and of a set point: `franky_sim_read.py QUESTION ANSWER`, both JSON."""

import json
import sys
from pathlib import Path

from franky_sim.franka_robot_protocol import UDPCommand
from franky_sim.franka_robot_state import FrankaRobotState

question = json.loads(Path(sys.argv[1]).read_text())
values = {name: tuple(numbers) for name, numbers in question["state"].items()}
state = FrankaRobotState(robot_mode=2, motion_generator_mode=2, controller_mode=0, **values)
point = UDPCommand.from_bytes(bytes.fromhex(question["set_point"]))
answer = {
    "state": state.pack_state().hex(),
    "set_point": [point.message_id, list(point.q_c), list(point.dq_c), point.motion_generation_finished],
}
Path(sys.argv[2]).write_text(json.dumps(answer))

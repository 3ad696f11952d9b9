"""The policy's process: `python -m alula.real_robot.planning.worker LINK module:function ARGUMENTS`.

Args:
    LINK: Number of an open socket.
    module:function: Builds the policy.
    ARGUMENTS: Of that function, as JSON.

It ends when its link or its standard input does.
"""

import json
import os
import socket
import sys
import threading
from importlib import import_module

from alula.real_robot.planning.answering import answer_questions
from alula.real_robot.planning.wire import Link

NICENESS = 10
"""How far this process steps back behind the control loop; our choice."""


def main() -> None:
    """Build the policy, say what it is, and answer."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    os.nice(NICENESS)
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    module, function = sys.argv[2].split(":")
    try:
        think, description = getattr(import_module(module), function)(**json.loads(sys.argv[3]))
    except Exception as error:
        link.send({"failure": f"{type(error).__name__}: {error}"})
        return
    try:
        link.send(description.to_dict())
        answer_questions(link, think, description, threading.Lock())
    except OSError:
        pass  # nobody asks any more


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()

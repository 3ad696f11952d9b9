"""The policy's side of a link: answers questions, one after the other."""

import threading
import time

from jaxtyping import Shaped
from numpy import ndarray

from alula.real_robot.planning.planner import Description, Plan, Request, Think, think_aloud
from alula.real_robot.planning.wire import Link, answer, asked


def answer_questions(link: Link, think: Think, description: Description, turn: threading.Lock) -> None:
    """Answer until the other side goes.

    Args:
        link: To whoever asks.
        think: The policy.
        description: Of it.
        turn: Held while it thinks: others may have the same network.

    Raises:
        OSError: the other side is gone.
        ValueError: what it says makes no sense.
    """

    def think_of_what_it_knows(request: Request) -> Shaped[ndarray, "..."]:
        description.require(request.observation)
        return think(request)

    while True:
        request, deadline = asked(link.receive())
        with turn:
            waited = (time.monotonic_ns() - request.created_ns) / 1e9
            if waited > deadline:
                plan = Plan(request, None, f"late: {waited:.3f} s passed before its turn, the deadline is {deadline} s")
            else:
                plan = think_aloud(think_of_what_it_knows, request)
        link.send(answer(plan))

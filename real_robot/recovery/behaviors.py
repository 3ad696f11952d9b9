"""Behaviour trees over motion generators (Ahmad et al., "Adaptable Recovery Behaviors in Robotics", 2024).

Leaves move or ask, the nodes above decide what comes next. Every period the root is ticked once; it says whether the
whole is running, has succeeded or has failed, and while it runs, `Scene.wish` is where the tool should be.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from jaxtyping import Float64
from numpy import ndarray

Pose = Float64[ndarray, " pose"]


class Status(StrEnum):
    """What a node says of itself."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass
class Scene:
    """What a tree sees, and what it says: the same object in every period."""

    pose: Pose
    """Where the tool is, in the action's coordinates; the first three may be a position [m]."""
    wish: Pose
    """Where it should be next; at first where it is."""
    period: float
    """Time from one tick to the next [s]."""


Motion = Generator[Pose, None, bool]
"""Yields a wish for every period; what it returns at its end says whether it has worked."""


@runtime_checkable
class Node(Protocol):
    """A part of a tree."""

    def tick(self, scene: Scene) -> Status:
        """Go on by one period. After success or failure the next tick begins anew."""
        ...

    def reset(self) -> None:
        """Forget everything that was begun."""
        ...


class Condition:
    """A question."""

    def __init__(self, test: Callable[[Scene], bool]) -> None:
        self._test = test

    def tick(self, scene: Scene) -> Status:
        """The answer."""
        return Status.SUCCESS if self._test(scene) else Status.FAILURE

    def reset(self) -> None:
        """There is nothing to forget."""


class Action:
    """A motion.

    Args:
        begin: Makes its generator, when it is this one's turn.
    """

    def __init__(self, begin: Callable[[Scene], Motion]) -> None:
        self._begin = begin
        self._motion: Motion | None = None

    def tick(self, scene: Scene) -> Status:
        """The next wish."""
        self._motion = self._begin(scene) if self._motion is None else self._motion
        try:
            scene.wish = next(self._motion)
        except StopIteration as end:
            self._motion = None
            return Status.SUCCESS if end.value else Status.FAILURE
        return Status.RUNNING

    def reset(self) -> None:
        """Begin anew the next time."""
        self._motion = None


class _Chain:
    """One child after the other, as long as they end in the status that lets it go on."""

    goes_on: Status

    def __init__(self, *children: Node) -> None:
        self._children, self._turn = children, 0

    def tick(self, scene: Scene) -> Status:
        """Go on with the child whose turn it is."""
        while self._turn < len(self._children):
            status = self._children[self._turn].tick(scene)
            if status is not self.goes_on:
                if status is not Status.RUNNING:
                    self.reset()
                return status
            self._turn += 1
        self.reset()
        return self.goes_on

    def reset(self) -> None:
        """Begin with the first child."""
        self._turn = 0
        for child in self._children:
            child.reset()


class Sequence(_Chain):
    """Succeeds when all children do, one after the other; fails with the first that does."""

    goes_on = Status.SUCCESS


class Fallback(_Chain):
    """Succeeds with the first child that does; fails when all do."""

    goes_on = Status.FAILURE


class Retry:
    """Lets a child that fails try again.

    Args:
        child: Who tries.
        attempts: Most that are made, at least 1.
    """

    def __init__(self, child: Node, attempts: int) -> None:
        self._child, self._attempts, self._failed = child, attempts, 0

    def tick(self, scene: Scene) -> Status:
        """Go on with this attempt; a new one begins in the next period."""
        status = self._child.tick(scene)
        if status is Status.FAILURE:
            self._failed += 1
            if self._failed < self._attempts:
                self._child.reset()
                return Status.RUNNING
        if status is not Status.RUNNING:
            self.reset()
        return status

    def reset(self) -> None:
        """No attempt has been made."""
        self._failed = 0
        self._child.reset()

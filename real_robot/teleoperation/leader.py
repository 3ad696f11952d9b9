"""Steering with a second arm: a leader without power, led in one's hands, whose joints another arm takes over."""

import threading
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from alula.core.errors import DeviceError
from alula.real_robot.contract import Device, DeviceSpec, Intent, State, Stop
from alula.real_robot.priority import BESIDE, hurry
from alula.real_robot.teleoperation.teleoperation import HEARTBEAT_S

STALE_PERIODS = 3
"""Of the leader, after which what it last said is no wish any more: our choice."""


class Leader:
    """A leader arm, read on a thread of its own, since its bus takes as long as the follower's.

    Args:
        arm: The leader, configured. Its motors lose their power: it must lie, or be held.
        follower: Whose joints are to be where the leader's are.

    Raises:
        DeviceError: the two do not have the same joints.
    """

    def __init__(self, arm: Device, follower: DeviceSpec) -> None:
        self.arm, self.follower = arm, follower
        theirs, ours = (spec.action["action"].element_names for spec in (arm.spec, follower))
        if theirs != ours or arm.spec.grip is None or follower.grip is None:
            raise DeviceError(
                f"{arm.spec.name} cannot lead {follower.name}: its joints are {', '.join(theirs) or 'without names'}, "
                f"those of {follower.name} {', '.join(ours) or 'without names'}; take an arm of the same kind"
            )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._state: State | None = None
        self._heard_ns = time.monotonic_ns()
        """When all joints were last heard of."""

    def open(self) -> None:
        """Take its power away, and begin to listen."""
        self.arm.stop(Stop.LIMP)
        self._thread.start()

    def _listen(self) -> None:
        hurry(BESIDE)
        while not self._ended.wait(1 / self.arm.spec.rate):
            self._state = self.arm.read()

    def close(self) -> None:
        """Listen no more; the arm stays connected."""
        self._ended.set()
        self._thread.join()

    def wish(self, now_ns: int) -> tuple[Float64[ndarray, " action"] | None, int]:
        """Where the follower is wished to be, None while that is not known, and when the leader was last heard of.

        Raises:
            DeviceError: the leader complains.
        """
        state = self._state
        if state is None or (not state.valid.all() and not state.faults):
            return None, self._heard_ns
        if state.faults:
            raise DeviceError(f"the leader reports: {'; '.join(state.faults)}")
        self._heard_ns = state.received_ns
        fresh = now_ns - state.received_ns < STALE_PERIODS * self.arm.spec.period_ns
        return self._mapped(state.position) if fresh else None, self._heard_ns

    def _mapped(self, position: Float64[ndarray, " action"]) -> Float64[ndarray, " action"]:
        """The follower's joints: the same angles, but for the gripper, which opens as far of its way as the leader's.

        The way of the leader's is as far as it was moved when it was calibrated: a handle opens less than fingers.
        """
        theirs, ours = self.arm.spec.grip, self.follower.grip
        assert theirs is not None
        assert ours is not None
        ends = self.arm.spec.limits.low[theirs.element], self.arm.spec.limits.high[theirs.element]
        closed, opened = ends if theirs.closed < theirs.opened else ends[::-1]
        share = np.clip((position[theirs.element] - closed) / (opened - closed), 0.0, 1.0)
        wish = position.copy()
        wish[ours.element] = ours.closed + share * (ours.opened - ours.closed)
        return wish


class LedByArm:
    """What a leader shows, as wishes; a leader that is silent, or complains, stops everything.

    Between the leader's places and the follower's there may be any distance: an `Arbitration` makes up for it.

    Args:
        leader: Open.
        emergency_stop: Called with the reason; the loop's governor has one.
    """

    def __init__(self, leader: Leader, emergency_stop: Callable[[str], None]) -> None:
        self.leader, self.emergency_stop = leader, emergency_stop

    def at(self, now_ns: int, state: State) -> Intent | None:
        """Where the leader is; None while that is not known."""
        try:
            wish, heard_ns = self.leader.wish(now_ns)
        except DeviceError as error:
            self.emergency_stop(str(error))
            return None
        silence = (now_ns - heard_ns) / 1e9
        if silence > HEARTBEAT_S:
            self.emergency_stop(f"the leader has not been heard of for {1e3 * silence:.0f} ms")
        return None if wish is None else Intent(wish, heard_ns, "teleoperation")


class LedByHand:
    """Wishes that an arm without power be where somebody's hand has put it."""

    def at(self, now_ns: int, state: State) -> Intent:
        """Where it is."""
        return Intent(state.position, now_ns, "teleoperation")

"""Demonstrations that are shown by hand: with a leader arm, or with the arm itself while it has no power."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from alula.commands.calibrate import Person
from alula.commands.console import ERR
from alula.configs.robots import RecordConfig
from alula.core.errors import ConfigError, DeviceError
from alula.real_robot.contract import Device, Intent, State, Stop
from alula.real_robot.devices.config import ServoArmConfig
from alula.real_robot.devices.dry_run import DryRun
from alula.real_robot.devices.registry import DEVICES, make_device
from alula.real_robot.loop import Source, Tick
from alula.real_robot.sources.arbitration import Arbitration
from alula.real_robot.teleoperation.leader import Leader, LedByArm, LedByHand


class Guide(ABC):
    """A hand whose ways a device records.

    Args:
        device: That records.
        person: Who has the arm in hand, and the keyboard beside it.
    """

    def __init__(self, device: Device, person: Person) -> None:
        self.device, self.person = device, person

    @abstractmethod
    def wishes(self, emergency_stop: Callable[[str], None]) -> Source:
        """What the hand shows."""

    def episode(
        self, finish: Callable[[], None], emergency_stop: Callable[[str], None], keep: Callable[[Tick], None]
    ) -> tuple[Source, Callable[[Tick], None]]:
        """An episode that begins when enter is pressed, and that enter ends: its source, and whom to tell of periods.

        The device goes smoothly from where it is to where the hand is, and then with it.

        Args:
            finish: Ends the run.
            emergency_stop: Stops it, for a reason.
            keep: Also told of every period.
        """
        ERR.print("Be where the episode begins, and press enter.")
        self.person.ready(None)
        arbitration = Arbitration(self.device.spec, [self.wishes(emergency_stop)])

        def record(tick: Tick) -> None:
            arbitration.note(tick)
            keep(tick)

        return _Attended(arbitration, self.person, finish), record


class _Attended:
    """A source with somebody beside it who presses enter when the episode is over."""

    def __init__(self, source: Source, person: Person, finish: Callable[[], None]) -> None:
        self.source, self.person, self.finish = source, person, finish

    def at(self, now_ns: int, state: State) -> Intent | None:
        """See `Source.at`."""
        if self.person.ready(0.0):
            self.finish()
        return self.source.at(now_ns, state)


class _ByLeader(Guide):
    """A leader arm in somebody's hands."""

    def __init__(self, device: Device, person: Person, leader: Leader) -> None:
        super().__init__(device, person)
        self.leader = leader

    def wishes(self, emergency_stop: Callable[[str], None]) -> Source:
        """See `Guide.wishes`."""
        return LedByArm(self.leader, emergency_stop)


class _ByHand(Guide):
    """The arm itself in somebody's hands."""

    def wishes(self, emergency_stop: Callable[[str], None]) -> Source:
        """See `Guide.wishes`."""
        return LedByHand()


@contextmanager
def _by_leader(config: RecordConfig, device: Device, person: Person) -> Iterator[Guide]:
    if config.leader is None:
        able = [name for name, entry in DEVICES.items() if issubclass(entry.config, ServoArmConfig)]
        raise ConfigError(
            f"leader is missing: give leader=NAME with one of {', '.join(able)}, leader.address=PORT and "
            "leader.calibration=FILE"
        )
    with ExitStack() as stack:
        try:
            leader = Leader(arm := make_device(config.leader), device.spec)
            stack.callback(arm.close)
            arm.configure()
        except DeviceError as error:
            raise DeviceError(f"the leader: {error}") from error
        leader.open()
        stack.callback(leader.close)
        yield _ByLeader(device, person, leader)


@contextmanager
def _by_hand(config: RecordConfig, device: Device, person: Person) -> Iterator[Guide]:
    if not isinstance(config.device, ServoArmConfig):
        raise ConfigError("source=hand is for arms made of servos, which a hand can move when they have no power")
    ERR.print(f"Support the {device.spec.name} with your hands: its motors lose their power when you press enter.")
    person.ready(None)
    device.stop(Stop.LIMP)
    yield _ByHand(DryRun(device), person)


GUIDES = {"leader": _by_leader, "hand": _by_hand}
"""Who can show it by hand, by the setting `source`."""

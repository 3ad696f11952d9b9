"""Settings of every device; light, so that the command line knows them without loading a driver."""

from dataclasses import dataclass

from alula.core.errors import ConfigError


@dataclass
class DeviceConfig:
    """What all devices are told."""

    address: str = ""
    """Where it is: a serial port such as /dev/ttyACM0, a host, or host:port; an emulator says its own."""
    speed: float = 1.0
    """Share of the device's limits of velocity, acceleration and jerk that may be used: 0.05 for a first motion."""

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0.001 <= self.speed <= 1.0:
            raise ConfigError(f"device.speed is {self.speed}; allowed are 0.001 to 1")


@dataclass
class SimulatedConfig(DeviceConfig):
    """No robot at all: joints that follow with a lag. For dry runs."""

    joints: int = 6
    """Number of joints."""
    rate: float = 100.0
    """Control periods per second [Hz]."""


@dataclass
class ServoArmConfig(DeviceConfig):
    """What all arms made of bus servos are told."""

    calibration: str = ""
    """File that `alula calibrate` wrote."""
    limp_on_close: bool = True
    """Take the torque away at the end, so that the arm sinks."""


@dataclass
class SO101Config(ServoArmConfig):
    """TheRobotStudio's SO-100 and SO-101, on Feetech servos."""


@dataclass
class DynamixelArmConfig(ServoArmConfig):
    """What arms on Dynamixel X servos are told, too."""

    watchdog: float = 0.1
    """The servos stop by themselves when they have heard nothing for so long [s]; in steps of 20 ms."""

    def __post_init__(self) -> None:
        """Check the time."""
        super().__post_init__()
        if not 0.02 <= self.watchdog <= 2.54:
            raise ConfigError(f"device.watchdog is {self.watchdog} s; allowed are 0.02 to 2.54")


@dataclass
class KochConfig(DynamixelArmConfig):
    """Koch v1.1, six Dynamixel XL430 and XL330 servos."""


@dataclass
class KochLeaderConfig(DynamixelArmConfig):
    """Leader arm of the Koch v1.1, six Dynamixel XL330-M077 servos."""


@dataclass
class ViperXConfig(DynamixelArmConfig):
    """Trossen's ViperX 300 S, as in ALOHA, on Dynamixel X servos."""

    limp_on_close: bool = False
    """Take the torque away at the end; this arm is heavy enough to break what is under it."""


@dataclass
class UR5eConfig(DeviceConfig):
    """Universal Robots UR5e over RTDE; its address is a host, or host:dashboard,script,rtde with other ports."""

    tool_mass: float = 0.0
    """Of what is at the flange [kg]; must be what the pendant's installation says."""
    watchdog: float = 0.1
    """The robot stops by itself when it has heard nothing for so long [s]."""
    lookahead: float = 0.05
    """Time over which the robot smoothes what it is told [s]; longer is smoother and later."""
    gain: float = 1000.0
    """Of the robot's following; lower is softer and later."""

    def __post_init__(self) -> None:
        """Check what the robot's program is told."""
        super().__post_init__()
        ranges = {"watchdog": (0.03, 1.0), "lookahead": (0.03, 0.2), "gain": (100.0, 2000.0)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"device.{name} is {getattr(self, name)}; allowed are {low} to {high}")


@dataclass
class FrankaConfig(DeviceConfig):
    """Franka Research 3 through franky."""

    dynamics: float = 0.3
    """Share of the robot's own limits of velocity, acceleration and jerk that may be used."""
    torque_threshold: float = 30.0
    """Torque at any joint beyond which the robot takes it for a collision and stops [N m]."""
    force_threshold: float = 50.0
    """The same for the force [N] and torque [N m] at the tool."""
    tool_mass: float = 0.0
    """Of what is at the flange beside the end effector that Desk knows [kg]."""
    tool_length: float = 0.0
    """How far its centre is from the flange [m]."""
    realtime: bool = True
    """Insist on a real-time kernel, without which a real robot misses answers and stops."""

    def __post_init__(self) -> None:
        """Check the share; the robot needs the rest to make up for what it is behind."""
        super().__post_init__()
        if not 0.01 <= self.dynamics <= 0.8:
            raise ConfigError(f"device.dynamics is {self.dynamics}; allowed are 0.01 to 0.8")


@dataclass
class CrazyflieConfig(DeviceConfig):
    """Bitcraze Crazyflie 2.x over CRTP: UDP here, radio with the extra `crazyflie`."""

    fence: float = 2.0
    """Half the side of the square that it may fly over [m]."""
    ceiling: float = 2.0
    """Height that it may fly at [m]."""
    takeoff: float = 0.5
    """Height that it takes off to [m]."""
    least_battery: float = 0.5
    """Share of the way from an empty (3.0 V) to a full battery (4.2 V) below which it is not armed."""
    emergency_watchdog: bool = False
    """Let it cut its motors one second after the host's last sign of life, in every mode; then only a restart helps."""


@dataclass
class PX4Config(DeviceConfig):
    """A multicopter with PX4 over MAVLink."""

    fence: float = 3.0
    """Half the side of the square that it may fly over [m]."""
    ceiling: float = 3.0
    """Height that it may fly at [m]."""
    takeoff: float = 1.0
    """Height that it takes off to [m]."""
    least_battery: float = 0.3
    """Share of the charge below which it is not armed."""

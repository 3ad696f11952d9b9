"""MAVSDK, which reads and writes MAVLink by its own code in C++, flies our emulated PX4 and sees what we see."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alula.core.geometry import attitude_enu_from_ned
from alula.real_robot.devices.config import PX4Config
from alula.real_robot.devices.px4 import PX4
from alula.real_robot.emulators.emulation import Emulation

pytestmark = pytest.mark.real_time

THEIRS = """
import json, sys, time
try:
    from mavsdk import ComponentType, Configuration, Mavsdk
    from mavsdk.plugins.action.action import Action
    from mavsdk.plugins.offboard.offboard import Offboard, OffboardError, PositionNedYaw
    from mavsdk.plugins.telemetry.telemetry import Telemetry
except (ImportError, OSError) as error:
    print(json.dumps({"missing": str(error)}))
    sys.exit()

sdk = Mavsdk(Configuration.create_with_component_type(ComponentType.COMPANION_COMPUTER))
sdk.add_any_connection(sys.argv[1])
system = sdk.first_autopilot(10.0)
assert system is not None, "no autopilot"
telemetry, action, offboard = Telemetry(system), Action(system), Offboard(system)

def wait(true, seconds=15.0):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)

wait(telemetry.health_all_ok)
found = {"autopilot": system.autopilot_type().name, "vehicle": system.vehicle_type().name}
found |= {"healthy": telemetry.health_all_ok(), "battery": telemetry.battery().remaining_percent, "refused": 0}
action.arm()
offboard.set_position_ned(PositionNedYaw(0.5, -0.25, -1.0, 120.0))
while True:
    try:
        offboard.start()
        break
    except OffboardError as error:
        found["refused"] += 1
        assert found["refused"] < 100, error
        time.sleep(0.1)

def there():
    place = telemetry.position_velocity_ned().position
    return max(abs(place.north_m - 0.5), abs(place.east_m + 0.25), abs(place.down_m + 1.0)) < 0.005

wait(there)
time.sleep(1.0)
place, attitude = telemetry.position_velocity_ned().position, telemetry.attitude_quaternion()
found |= {"place": [place.north_m, place.east_m, place.down_m], "mode": telemetry.flight_mode().name}
found |= {"attitude": [attitude.w, attitude.x, attitude.y, attitude.z], "in_air": telemetry.in_air()}
action.hold()
wait(lambda: telemetry.flight_mode().name == "HOLD")
found["held"] = telemetry.flight_mode().name
print(json.dumps(found))
"""


@pytest.fixture
def flown(tmp_path: Path) -> Any:
    """What MAVSDK says after its flight, and the emulator, still in the air."""
    setup = {"limits": None, "scene": None}
    with Emulation("alula.real_robot.emulators.px4", tmp_path, setup) as emulation:
        url = emulation.address.replace("udpout:", "udpout://")
        done = subprocess.run([sys.executable, "-c", THEIRS, url], capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        # Its library prints its own log to the same stream.
        found = json.loads(done.stdout.strip().splitlines()[-1])
        if "missing" in found:
            pytest.skip(f"MAVSDK cannot be loaded: {found['missing']}; pip install mavsdk")
        yield found, emulation


@pytest.mark.slow
@pytest.mark.oracle
def test_mavsdk_flies_our_emulator_and_sees_what_our_driver_sees(flown: tuple[dict[str, Any], Emulation]) -> None:
    found, emulation = flown
    assert found["autopilot"] == "PX4"
    assert found["vehicle"] == "MULTICOPTER"
    assert found["healthy"]
    assert found["battery"] == pytest.approx(100, abs=3)
    assert found["refused"] >= 1, "OFFBOARD was accepted before setpoints had flowed for a second"
    assert (found["mode"], found["in_air"], found["held"]) == ("OFFBOARD", True, "HOLD")
    np.testing.assert_allclose(found["place"], [0.5, -0.25, -1.0], atol=0.02)
    # Its setpoint, by the emulator's own reading: 0.25 m to the west, 0.5 m to the north, 1 m up.
    places = [entry["place"] for entry in emulation.log() if entry["event"] == "place"]
    np.testing.assert_allclose(places[-1], [-0.25, 0.5, 1.0], atol=1e-6)
    device = PX4(PX4Config(emulation.address))
    device.configure()
    try:
        ours = device.read()
    finally:
        device._session.close()  # it goes on hovering
    north, east, down = found["place"]
    np.testing.assert_allclose(ours.position[:3], [east, north, -down], atol=0.02)
    # A heading of 120 degrees from north to east is -30 degrees from east to north.
    assert ours.position[3] == pytest.approx(np.radians(-30), abs=0.02)
    theirs = attitude_enu_from_ned(np.array([found["attitude"]]))[0]
    mine = ours.observation["observation.state"][3:7]
    assert abs(float(theirs @ mine)) == pytest.approx(1.0, abs=1e-3)

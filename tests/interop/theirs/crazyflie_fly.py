"""Bitcraze's client connects to a Crazyflie, reads its state, takes off, flies and lands: crazyflie_fly.py URI."""

import math
import sys
import tempfile
import time

import cflib.crtp
from cflib.crazyflie import Crazyflie
from cflib.crazyflie.log import LogConfig
from cflib.crazyflie.syncCrazyflie import SyncCrazyflie

GOAL = (0.3, -0.2, 0.8)
seen = {}


def keep(stamp, values, block):
    seen.update(values, stamp=stamp)
    seen["packets"] = seen.get("packets", 0) + 1


def wait(met, seconds=10.0):
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"never happened; last seen: {seen}"
        time.sleep(0.02)


def near(place, distance=0.05):
    return lambda: math.dist([seen[f"stateEstimate.{name}"] for name in "xyz"], place) < distance


def here():
    return [seen[f"stateEstimate.{name}"] for name in "xyz"]


uri = sys.argv[1]
cflib.crtp.init_drivers(enable_serial_driver=False)
if 19850 <= int(uri.rpartition(":")[2]) < 19860:  # where it looks for simulations
    assert uri in [found for found, _ in cflib.crtp.scan_interfaces()]

with SyncCrazyflie(uri, cf=Crazyflie(rw_cache=tempfile.mkdtemp())) as link:
    cf = link.cf
    link.wait_for_params()
    assert cf.platform.get_protocol_version() == 12
    assert int(cf.param.get_value("stabilizer.controller")) in (1, 2)
    cf.param.set_value("stabilizer.controller", 2)
    wait(lambda: int(cf.param.get_value("stabilizer.controller")) == 2)

    log = LogConfig("state", period_in_ms=10)
    for name in ("x", "y", "z"):
        log.add_variable(f"stateEstimate.{name}", "float")
    log.add_variable("pm.vbat", "FP16")
    log.add_variable("supervisor.info", "uint16_t")
    cf.log.add_config(log)
    log.data_received_cb.add_callback(keep)
    log.start()
    wait(lambda: seen.get("packets", 0) > 20)
    assert 4.0 < seen["pm.vbat"] <= 4.2

    assert cf.supervisor.can_be_armed
    cf.supervisor.send_arming_request(True)
    wait(lambda: seen["supervisor.info"] & 2)
    start = here()
    cf.high_level_commander.takeoff(0.5, 1.5)
    wait(near((*start[:2], 0.5)))
    assert seen["supervisor.info"] & 0x10

    for step in range(201):  # full state, as our own driver sends it
        share = step / 200
        place = [a + share * (b - a) for a, b in zip((*start[:2], 0.5), GOAL, strict=True)]
        cf.commander.send_full_state_setpoint(place, (0, 0, 0), (0, 0, 0), (0, 0, 0, 1), 0, 0, 0)
        time.sleep(0.01)
    for _ in range(150):  # and places, as scripts send them
        cf.commander.send_position_setpoint(*GOAL, 90.0)
        time.sleep(0.01)
    wait(near(GOAL), 0.5)
    for _ in range(50):
        cf.commander.send_velocity_world_setpoint(0.4, 0.0, 0.0, 0.0)
        time.sleep(0.01)
    assert here()[0] > GOAL[0] + 0.05
    for _ in range(50):
        cf.commander.send_hover_setpoint(0.0, 0.0, 0.0, 0.6)
        time.sleep(0.01)

    cf.high_level_commander.go_to(0.0, 0.0, 0.6, 0.0, 1.5)
    cf.commander.send_notify_setpoint_stop()
    wait(near((0.0, 0.0, 0.6)))
    cf.high_level_commander.land(0.02, 1.5)
    wait(lambda: here()[2] < 0.06)
    cf.supervisor.send_arming_request(False)
    wait(lambda: not seen["supervisor.info"] & 2)
    log.stop()

print("flown")

"""Units of what PX4 logs, from the comments of its message definitions (PX4-Autopilot, `msg/*.msg`)."""

import re

TOPICS: dict[str, dict[str, str]] = {
    "actuator_outputs": {"output": "us"},  # Pulse widths; other protocols count otherwise.
    "sensor_combined": {
        **{"gyro_rad": "rad/s", "accelerometer_m_s2": "m/s^2"},
        **{"gyro_integral_dt": "us", "accelerometer_integral_dt": "us"},
        **{"accelerometer_timestamp_relative": "us"},
    },
    "vehicle_acceleration": {"xyz": "m/s^2"},
    "vehicle_angular_acceleration": {"xyz": "rad/s^2"},
    "vehicle_angular_velocity": {"xyz": "rad/s", "xyz_derivative": "rad/s^2"},
    "vehicle_attitude": {"rollspeed": "rad/s", "pitchspeed": "rad/s", "yawspeed": "rad/s"},
    "vehicle_attitude_setpoint": {
        **{"roll_body": "rad", "pitch_body": "rad", "yaw_body": "rad", "yaw_sp_move_rate": "rad/s"},
    },
    "vehicle_global_position": {
        **{"lat": "deg", "lon": "deg", "alt": "m", "alt_ellipsoid": "m", "eph": "m", "epv": "m", "terrain_alt": "m"},
        **{"delta_alt": "m"},
    },
    "vehicle_gps_position": {
        **{"lat": "1e-7 deg", "lon": "1e-7 deg", "alt": "mm", "alt_ellipsoid": "mm", "eph": "m", "epv": "m"},
        **{"latitude_deg": "deg", "longitude_deg": "deg", "heading": "rad", "heading_offset": "rad"},
        **{"timestamp_time_relative": "us"},
    },
    "vehicle_imu": {
        **{"delta_angle": "rad", "delta_velocity": "m/s", "delta_angle_dt": "us", "delta_velocity_dt": "us"},
    },
    "vehicle_land_detected": {"alt_max": "m"},
    "vehicle_local_position": {
        **{"x": "m", "y": "m", "z": "m", "delta_xy": "m", "delta_z": "m"},
        **{"vx": "m/s", "vy": "m/s", "vz": "m/s", "z_deriv": "m/s", "delta_vxy": "m/s", "delta_vz": "m/s"},
        **{"ax": "m/s^2", "ay": "m/s^2", "az": "m/s^2", "heading": "rad", "delta_heading": "rad", "yaw": "rad"},
        **{"ref_lat": "deg", "ref_lon": "deg", "ref_alt": "m", "dist_bottom": "m", "dist_bottom_rate": "m/s"},
        **{"eph": "m", "epv": "m", "evh": "m/s", "evv": "m/s", "vxy_max": "m/s", "vz_max": "m/s"},
        **{"hagl_min": "m", "hagl_max": "m"},
    },
    "vehicle_local_position_setpoint": {
        **{"x": "m", "y": "m", "z": "m", "vx": "m/s", "vy": "m/s", "vz": "m/s", "yaw": "rad", "yawspeed": "rad/s"},
        **{"velocity": "m/s", "acceleration": "m/s^2"},
    },
    "vehicle_rates_setpoint": {"roll": "rad/s", "pitch": "rad/s", "yaw": "rad/s"},
    "wind_estimate": {"windspeed_north": "m/s", "windspeed_east": "m/s"},
}
"""By topic and field, where the name does not say it."""
SUFFIXES = {
    **{"m_s2": "m/s^2", "m_s": "m/s", "rad_s": "rad/s", "rad": "rad", "deg": "deg", "meter": "m", "rho": "kg/m^3"},
    **{"v": "V", "a": "A", "mah": "mA h", "ga": "G", "pa": "Pa", "celsius": "degC", "celcius": "degC"},
    **{"us": "us", "usec": "us", "ms": "ms", "hz": "Hz", "kb": "kB", "kb_s": "kB/s", "bytes": "B"},
}
"""By the end of a field's name, behind an underscore."""
TIMES = re.compile(r"(.*\.)?(timestamp|timestamp_sample|ref_timestamp|.*_timestamp)")
"""Names of fields in microseconds since boot."""


def unit_of(topic: str, field: str) -> str:
    """The unit of a field, "1" where it is a pure number or not known."""
    known = TOPICS.get(topic, {}).get(field)
    if known or TIMES.fullmatch(field):
        return known or "us"
    words = field.split("_")
    return SUFFIXES.get("_".join(words[-2:])) or SUFFIXES.get(words[-1], "1") if len(words) > 1 else "1"

"""Scene of PegInsertion: an arm that holds a square peg over a table with a movable socket."""

import mujoco

from alula.sims.robots.robot import Robot, add_arm
from alula.sims.scenery import add_camera, lit_scene

PEG_HALF_WIDTH = 0.010
"""Half the side of the square peg [m]."""
PEG_LENGTH = 0.06
"""Free length of the peg below the gripper [m]."""
GRIPPER_LENGTH = 0.10
"""Distance from the flange to the peg's upper end [m]."""
GRIPPER_MASS = 0.73
"""Mass of the Franka hand [kg] (vendor's data sheet), which every arm holds here."""
PEG_MASS = 0.1
"""[kg]"""
HOLE_DEPTH = 0.025
"""[m]"""
WALL = 0.02
"""Thickness of the socket's walls [m]."""
SUBSTEP = 0.0025
"""Physics step [s]."""
FRICTION = 0.3
"""Sliding friction of steel on dry plastic, of the order of tribology tables."""


def build_model(robot: Robot, clearance: float) -> mujoco.MjModel:
    """Compile the scene.

    Args:
        robot: The arm.
        clearance: Gap between peg and socket on every side [m].
    """
    spec = lit_scene(SUBSTEP, brightness=0.3)
    spec.modelname = "peg_insertion"
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # The arm compensates gravity and holds the peg rigidly: nothing in this scene can fall.
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_GRAVITY
    _add_surroundings(spec)
    flange = add_arm(spec, robot)
    _add_tool(spec, flange)
    _add_socket(spec, clearance)
    return spec.compile()


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    world.add_light(pos=[0.3, -0.6, 1.6], dir=[0.1, 0.4, -1.0], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0.4, 0, -0.02],
        size=[0.6, 0.6, 0.02],
        rgba=[0.66, 0.60, 0.52, 1],
        friction=[FRICTION, 0.005, 0.0001],
    )
    add_camera(spec.worldbody, "overview", position=(1.05, -0.72, 0.68), target=(0.32, 0.0, 0.22), fovy=42)
    add_camera(spec.worldbody, "closeup", position=(0.76, -0.32, 0.22), target=(0.50, 0.0, 0.06), fovy=40)


def _add_tool(spec: mujoco.MjSpec, flange: mujoco.MjsBody) -> None:
    tool = flange.add_body(name="tool", gravcomp=1.0)
    tool.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0, 0, GRIPPER_LENGTH / 2],
        size=[0.03, 0.05, GRIPPER_LENGTH / 2],
        mass=GRIPPER_MASS,
        contype=0,
        conaffinity=0,
        rgba=[0.25, 0.27, 0.30, 1],
    )
    tool.add_geom(
        name="peg",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0, 0, GRIPPER_LENGTH + PEG_LENGTH / 2],
        size=[PEG_HALF_WIDTH, PEG_HALF_WIDTH, PEG_LENGTH / 2],
        mass=PEG_MASS,
        rgba=[0.90, 0.45, 0.13, 1],
        friction=[FRICTION, 0.005, 0.0001],
        **_STIFF,
    )
    tool.add_site(name="tip", pos=[0, 0, GRIPPER_LENGTH + PEG_LENGTH])
    for name, kind in (("force", mujoco.mjtSensor.mjSENS_FORCE), ("torque", mujoco.mjtSensor.mjSENS_TORQUE)):
        spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname="tip")


def _add_socket(spec: mujoco.MjSpec, clearance: float) -> None:
    """Four walls around the hole; the frame's origin is the centre of the hole's upper edge."""
    socket = spec.worldbody.add_body(name="socket", mocap=True, pos=[0.5, 0, HOLE_DEPTH])
    inner = PEG_HALF_WIDTH + clearance
    middle, outer = inner + WALL / 2, inner + WALL
    walls = {
        "east": ((middle, 0.0), (WALL / 2, outer)),
        "west": ((-middle, 0.0), (WALL / 2, outer)),
        "north": ((0.0, middle), (inner, WALL / 2)),
        "south": ((0.0, -middle), (inner, WALL / 2)),
    }
    for name, (center, half) in walls.items():
        socket.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[*center, -HOLE_DEPTH / 2],
            size=[*half, HOLE_DEPTH / 2],
            rgba=[0.20, 0.42, 0.66, 1],
            friction=[FRICTION, 0.005, 0.0001],
            **_STIFF,
        )


_STIFF = {"solref": [0.006, 1.0], "solimp": [0.97, 0.995, 0.0002, 0.5, 2.0]}
"""Contacts yield far less than the clearance: time constant just above two substeps."""

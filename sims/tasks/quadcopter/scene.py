"""The flight arena, and marks in it."""

import mujoco

from alula.sims.scenery import lit_scene

MARK_COLOR = (0.20, 0.62, 0.35, 0.45)


def empty_arena(physics_rate: int) -> mujoco.MjSpec:
    """A chequered floor at height zero under an even light.

    Args:
        physics_rate: Physics steps per second [Hz].
    """
    spec = lit_scene(1.0 / physics_rate, brightness=0.35)
    spec.stat.extent, spec.stat.center = 3.0, [0, 0, 1]  # without these, of the endless floor
    spec.add_texture(
        name="tiles",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        width=256,
        height=256,
        rgb1=[0.78, 0.76, 0.72],
        rgb2=[0.70, 0.68, 0.64],
    )
    tiles = spec.add_material(name="tiles", texrepeat=[2, 2], texuniform=True)
    tiles.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "tiles"
    world = spec.worldbody
    world.add_light(pos=[0, 0, 3], dir=[0.0, 0.01, -1.0], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    # Drawn to a finite distance, as an endless one would be drawn around where the camera was the time before.
    world.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[20, 20, 0.1], material="tiles")
    return spec


def add_mark(spec: mujoco.MjSpec, name: str, radius: float) -> None:
    """A translucent ball that can be moved, and that nothing touches.

    Args:
        spec: The scene.
        name: Of the mocap body.
        radius: [m]
    """
    mark = spec.worldbody.add_body(name=name, mocap=True)
    mark.add_site(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[radius, 0, 0], rgba=list(MARK_COLOR))

"""What scenes of our own share: sky, light, picture size and cameras."""

import mujoco
import numpy as np

from alula.sims.robots.robot import Vector


def lit_scene(timestep: float, brightness: float) -> mujoco.MjSpec:
    """An empty scene under a bright sky, angles in radians.

    Args:
        timestep: Physics step [s].
        brightness: Of the light from all around, 0 to 1.
    """
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = timestep
    spec.visual.headlight.ambient = [brightness] * 3
    spec.visual.headlight.diffuse = [brightness] * 3
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]  # its highlight would wash out what is seen from above
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        width=256,
        height=256,
        rgb1=[0.86, 0.90, 0.95],
        rgb2=[0.55, 0.62, 0.72],
    )
    return spec


def add_camera(body: mujoco.MjsBody, name: str, position: Vector, target: Vector, fovy: float) -> None:
    """A camera at `position` in a body that looks at `target`, upright; `fovy` in degrees."""
    backward = np.subtract(position, target)
    right = np.cross([0, 0, 1], backward)
    up = np.cross(backward, right)
    camera = body.add_camera(name=name, pos=list(position), fovy=fovy)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*(right / np.linalg.norm(right)), *(up / np.linalg.norm(up))]

"""Where an arm may be: its tool inside a box, and parts of it away from other parts and from what stands around."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import mujoco
import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from alula.core.errors import ConfigError, unknown_name

MOST_PAIRS = 15
"""Pairs of groups that MuJoCo's 31 bits of `contype` can tell apart."""
SLACK = 0.001
"""How much farther [m] everything is kept than was asked for, since nothing is looked at any finer than this."""
ROUND = [mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CAPSULE]
"""Kinds of geoms whose distances MuJoCo's collisions tell exactly, to any other kind."""
WATCHED = 0.15
"""Distances are measured up to here [m]; what is farther apart counts as this far."""
MOST_QUESTIONS = 48
"""Places of one way that are looked at; what cannot be decided with these is not permitted."""

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Apart:
    """Two groups of bodies that keep their distance; their own members may touch each other."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    """Names in the model; `world` is everything that never moves and belongs to no other body."""


class ArmWorkspace:
    """A box for the tool and distances between bodies, asked of a MuJoCo model by its forward kinematics.

    Whatever else moves in the model stays where the model begins. Of a way so many places are looked at that nothing
    can be missed in between: no point of the arm moves farther than its greatest distance from each joint, times what
    the joint turns. So one is fast only where there is room.

    Args:
        model: Of the arm and what stands around it; not changed.
        joints: For every element of the action the joints that it is the position of; none for those that move nothing.
        tool: Name of the site at the tool.
        box: Corners of the box with the least and the greatest coordinates, in the world [m].
        apart: What keeps its distance.
        distance: Least distance that it keeps [m].

    Raises:
        ConfigError: a name is not in the model, or the box is empty.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joints: Sequence[Sequence[str]],
        tool: str,
        box: tuple[Point, Point],
        apart: Sequence[Apart] = (),
        distance: float = 0.01,
    ) -> None:
        low, high = np.array(box[0]) + SLACK, np.array(box[1]) - SLACK
        if not (low < high).all():
            raise ConfigError(
                f"the box for the tool reaches from {box[0]} to {box[1]} m; each edge must be longer than {2 * SLACK} m"
            )
        if len(apart) > MOST_PAIRS:
            raise ConfigError(f"{len(apart)} pairs are to keep their distance; at most {MOST_PAIRS} can")
        self._walls = low.tolist(), high.tolist()
        self._distance = distance + SLACK
        self.model = _watching(model, apart, self._distance + WATCHED)
        self.data = mujoco.MjData(self.model)
        # MuJoCo's collisions overlook boxes that are near each other without touching: these are measured one by one.
        self._angular = _angular_pairs(self.model, apart)
        # Views of what MuJoCo writes: to ask its object for them anew takes longer than the kinematics.
        self._tool = self.data.site_xpos[_number(model, mujoco.mjtObj.mjOBJ_SITE, tool)]
        self._qpos = self.data.qpos
        moved = [(element, name) for element, names in enumerate(joints) for name in names]
        self._elements = np.array([element for element, _ in moved], dtype=np.intp)
        numbers = [_number(model, mujoco.mjtObj.mjOBJ_JOINT, name) for _, name in moved]
        self._addresses = model.jnt_qposadr[numbers]
        self._leverage = np.array([_leverage(model, number) for number in numbers])

    def inside(self, positions: Float64[ndarray, "points action"]) -> Bool[ndarray, " points"]:
        """See `Workspace.inside`."""
        return np.array([self._clearance(qpos) >= 0.0 for qpos in positions[:, self._elements]])

    def free(self, way: Float64[ndarray, "places action"]) -> bool:
        """See `Workspace.free`; a device that is outside, by a little, may go wherever it is no farther out."""
        places = way[:, self._elements]
        moved = np.abs(np.diff(places, axis=0)) @ self._leverage
        travel = [0.0, *np.cumsum(moved).tolist()]
        clear = {0: self._clearance(places[0])}
        least = min(clear[0], 0.0)
        pending = [(0, len(places) - 1), (0, min(1, len(places) - 1))]
        while pending:
            first, last = pending.pop()
            if last not in clear:
                if len(clear) >= MOST_QUESTIONS:
                    return False
                clear[last] = self._clearance(places[last])
            if clear[last] < least:
                return False
            far = travel[last] - travel[first]
            if far > max(clear[first] + clear[last] - 2 * least, 2 * SLACK):
                if last - first == 1:
                    return False
                middle = (first + last) // 2
                pending += [(middle, last), (first, middle)]
        return True

    def _clearance(self, qpos: Float64[ndarray, " joints"]) -> float:
        """Distance to the nearest wall or body beyond what is to be kept [m]; negative outside."""
        self._qpos[self._addresses] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)
        x, y, z = self._tool.tolist()
        (x0, y0, z0), (x1, y1, z1) = self._walls
        nearest = min(x - x0, y - y0, z - z0, x1 - x, y1 - y, z1 - z, WATCHED)
        if self.data.ncon:
            nearest = min(nearest, self.data.contact.dist.min() - self._distance)
        for first, second in self._angular:
            farthest = nearest + self._distance
            nearest = mujoco.mj_geomDistance(self.model, self.data, first, second, farthest, None) - self._distance
        return float(nearest)


def _leverage(model: mujoco.MjModel, joint: int) -> float:
    """How far from the axis of a joint the farthest point that it moves can ever be [m]; 1 for a slide."""
    if _slides(model, joint):
        return 1.0
    reach = {int(model.jnt_bodyid[joint]): float(np.linalg.norm(model.jnt_pos[joint]))}
    for body in range(model.nbody):
        if body not in reach and int(model.body_parentid[body]) in reach:
            slides = [number for number in range(model.njnt) if model.jnt_bodyid[number] == body]
            slack = sum(float(np.abs(model.jnt_range[number]).max()) for number in slides if _slides(model, number))
            reach[body] = reach[int(model.body_parentid[body])] + float(np.linalg.norm(model.body_pos[body])) + slack
    geoms = [
        reach[int(body)] + float(np.linalg.norm(model.geom_pos[geom]) + model.geom_rbound[geom])
        for geom, body in enumerate(model.geom_bodyid)
        if int(body) in reach
    ]
    sites = [
        reach[int(body)] + float(np.linalg.norm(model.site_pos[site]))
        for site, body in enumerate(model.site_bodyid)
        if int(body) in reach
    ]
    return max([0.0, *geoms, *sites])


def _slides(model: mujoco.MjModel, joint: int) -> bool:
    return bool(model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE)


def _watching(model: mujoco.MjModel, apart: Sequence[Apart], distance: float) -> mujoco.MjModel:
    """The model, in which exactly those collide that are to be apart, as soon as they are that near."""
    model = copy.copy(model)
    masks = (model.geom_contype, model.body_contype), (model.geom_conaffinity, model.body_conaffinity)
    for array in (*masks[0], *masks[1], model.geom_gap):
        array[:] = 0
    model.geom_margin[:] = model.body_margin[:] = distance
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_FILTERPARENT
    for pair, groups in enumerate(apart):
        bits = 1 << 2 * pair, 2 << 2 * pair
        for names, (own, other) in zip((groups.first, groups.second), (bits, bits[::-1]), strict=True):
            bodies = [_number(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in names]
            for bit, (of_geom, of_body) in zip((own, other), masks, strict=True):
                of_geom[np.isin(model.geom_bodyid, bodies)] |= bit
                of_body[bodies] |= bit
    return model


def _angular_pairs(model: mujoco.MjModel, apart: Sequence[Apart]) -> list[tuple[int, int]]:
    """Geoms that are to be apart and of which neither is round."""

    def geoms(names: tuple[str, ...]) -> list[int]:
        bodies = [_number(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in names]
        return np.flatnonzero(np.isin(model.geom_bodyid, bodies) & ~np.isin(model.geom_type, ROUND)).tolist()

    return [pair for groups in apart for pair in product(geoms(groups.first), geoms(groups.second))]


def _number(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    found = mujoco.mj_name2id(model, kind, name)
    if found < 0:
        count = {
            mujoco.mjtObj.mjOBJ_SITE: model.nsite,
            mujoco.mjtObj.mjOBJ_JOINT: model.njnt,
            mujoco.mjtObj.mjOBJ_BODY: model.nbody,
        }[kind]
        names = [mujoco.mj_id2name(model, kind, number) or "" for number in range(count)]
        raise ConfigError(unknown_name(kind.name.removeprefix("mjOBJ_").lower(), name, filter(None, names)))
    return int(found)

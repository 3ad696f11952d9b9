"""A behaviour on a device."""

from alula.real_robot.contract import DeviceSpec, Intent, State
from alula.real_robot.recovery.behaviors import Node, Scene, Status


class Behavior:
    """Ticks a tree once a period, and wishes what it wishes; once the tree has ended it stays where it is.

    Args:
        tree: Whose wishes are the device's positions, such as x, y and z of its tool.
        spec: Of the device.
    """

    def __init__(self, tree: Node, spec: DeviceSpec) -> None:
        self.tree, self.spec = tree, spec
        self.status = Status.RUNNING
        """How far it is."""
        self._scene: Scene | None = None

    def at(self, now_ns: int, state: State) -> Intent:
        """The tree's wish."""
        if self._scene is None:
            self._scene = Scene(state.position, state.position.copy(), 1.0 / self.spec.rate)
        self._scene.pose = state.position
        if self.status is Status.RUNNING:
            self.status = self.tree.tick(self._scene)
        return Intent(self._scene.wish, now_ns, "recovery")

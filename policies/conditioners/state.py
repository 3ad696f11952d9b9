"""Numbers that describe robot and surroundings."""

import torch
from jaxtyping import Float
from torch import Tensor

from alula.core.normalizer import Normalizer
from alula.core.spaces import SpaceSpec
from alula.policies.conditioners.conditioner import Conditioner, Observation

FINE_CLAMP = 3.0
"""Normalised observations beyond this many recorded half-ranges are clamped: a guard, not a scaling."""


class StateConditioner(Conditioner):
    """Low-dimensional fields, scaled to [-1, 1], and once more on the scale that matters to the task.

    Elements with a `resolution` r also enter as tanh(value / r): a millimetre stays visible beside half a metre.
    Numbers of any type enter in single precision; integers, such as the bytes of an instruction, count as numbers.
    """

    def __init__(self, observation: SpaceSpec) -> None:
        super().__init__()
        self.names = tuple(observation)
        self.normalizer = Normalizer({name: field.shape for name, field in observation.items()})
        self.size = sum(field.size for field in observation.values())
        self._fine: list[tuple[str, int]] = []
        for index, (name, field) in enumerate(observation.items()):
            if field.resolution is None:
                continue
            resolution = torch.tensor(field.resolution).expand(field.shape)
            ids = torch.nonzero(resolution > 0)[:, 0]
            self.register_buffer(f"fine_ids_{index}", ids, persistent=False)
            self.register_buffer(f"fine_scale_{index}", 1.0 / resolution[ids], persistent=False)
            self._fine.append((name, index))
            self.size += len(ids)

    def forward(self, observation: Observation) -> Float[Tensor, "batch features"]:
        """Features of a batch of observations; fields of several axes are flattened."""
        seen = {name: observation[name].float() for name in self.names}
        parts = [self.normalizer.normalize(name, seen[name]).clamp(-FINE_CLAMP, FINE_CLAMP) for name in self.names]
        parts = [part.reshape(len(part), -1) for part in parts]
        for name, index in self._fine:
            ids, scale = self.get_buffer(f"fine_ids_{index}"), self.get_buffer(f"fine_scale_{index}")
            parts.append(torch.tanh(seen[name][:, ids] * scale))
        return torch.cat(parts, dim=1)

"""DDPM and DDIM: one kernel, with tables and step spacing from `diffusers`."""

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from alula.policies.config import DiffusionPolicyConfig
from alula.policies.processes.process import Chunk, Guide, Predict, Prediction, Step

CLIP = 1.0
"""Denoised chunks are clipped to the normalised action range at every step."""
MAX_GUIDANCE = 5.0
"""Bound of the guidance weight (Black et al. 2025, arXiv:2506.07339, section 4.2)."""


class DiffusionProcess(nn.Module):
    """Denoising diffusion over chunks in [-1, 1] with the squared-cosine schedule (Nichol & Dhariwal 2021).

    The kernel is DDIM's (Song et al. 2021, arXiv:2010.02502, eq. 12) with the noise recomputed from the clipped
    denoised chunk; with `eta` = 1 and all steps it is DDPM's posterior (Ho et al. 2020, arXiv:2006.11239, eq. 7).
    Every step is affine in the denoised and the noisy chunk, so it is stored as a table of coefficients.
    """

    def __init__(self, config: DiffusionPolicyConfig, action_size: int) -> None:
        super().__init__()
        self.prediction_size = action_size
        self.num_steps = config.sampling_steps
        scheduler = DDIMScheduler(
            num_train_timesteps=config.denoising_steps,
            beta_schedule="squaredcos_cap_v2",
            prediction_type=config.prediction,
            timestep_spacing="trailing",
        )
        scheduler.set_timesteps(self.num_steps)
        timesteps = scheduler.timesteps
        alphas = scheduler.alphas_cumprod.double()
        now = alphas[timesteps]
        following = torch.cat([alphas[timesteps[1:]], alphas.new_ones(1)])
        spread = ((1 - following) / (1 - now) * (1 - now / following)).clamp(min=0.0).sqrt()
        tables = {"timesteps": timesteps.double(), "signal": alphas.sqrt(), "noise": (1 - alphas).sqrt()}
        tables |= self._denoising(config.prediction, now)
        for name, eta in (("deterministic", 0.0), ("stochastic", config.eta)):
            std = eta * spread
            keep = (1 - following - std**2).clamp(min=0.0).sqrt() / (1 - now).sqrt()
            tables[f"{name}_std"] = std
            tables[f"{name}_from_noisy"] = keep
            tables[f"{name}_from_clean"] = following.sqrt() - keep * now.sqrt()
        tables["stochastic_std"] = tables["stochastic_std"].clamp(min=config.std_floor)
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)
        self.prediction = config.prediction

    @staticmethod
    def _denoising(prediction: str, now: Tensor) -> dict[str, Tensor]:
        """Coefficients of the denoised chunk in the noisy one and the prediction."""
        match prediction:
            case "epsilon":
                return {"clean_from_noisy": now**-0.5, "clean_from_prediction": -((1 - now) / now).sqrt()}
            case "sample":
                return {"clean_from_noisy": torch.zeros_like(now), "clean_from_prediction": torch.ones_like(now)}
            case _:
                return {"clean_from_noisy": now.sqrt(), "clean_from_prediction": -(1 - now).sqrt()}

    def _at(self, table: str, index: Int64[Tensor, " batch"]) -> Float[Tensor, "batch 1 1"]:
        return self.get_buffer(table)[index][:, None, None]

    def prior(self, shape: tuple[int, int, int], generator: Generator) -> Chunk:
        """Standard normal noise."""
        return torch.randn(shape, generator=generator, dtype=self.get_buffer("signal").dtype)

    def training_pair(self, chunk: Chunk, generator: Generator) -> tuple[Chunk, Float[Tensor, " batch"], Chunk]:
        """A chunk noised at a random step of the training schedule, and what the network should say of it."""
        table = self.get_buffer("signal")
        step = torch.randint(len(table), (len(chunk),), generator=generator)
        noise = torch.randn(chunk.shape, generator=generator, dtype=chunk.dtype)
        signal, spread = self._at("signal", step), self._at("noise", step)
        noisy = signal * chunk + spread * noise
        match self.prediction:
            case "epsilon":
                target = noise
            case "sample":
                target = chunk
            case _:
                target = signal * noise - spread * chunk
        return noisy, step.to(chunk.dtype), target

    def error(self, prediction: Prediction, target: Chunk) -> Chunk:
        """Squared error, all steps weighted alike (Ho et al. 2020, eq. 14)."""
        return (prediction - target) ** 2

    def time(self, step: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Training step that a sampling step stands for."""
        return self.get_buffer("timesteps")[step]

    def kernel(self, step: Int64[Tensor, " batch"], noisy: Chunk, prediction: Prediction, stochastic: bool) -> Step:
        """Next chunk of the chain: DDIM with `eta` and the floor if stochastic, with eta = 0 if not."""
        kind = "stochastic" if stochastic else "deterministic"
        clean = self._at("clean_from_noisy", step) * noisy + self._at("clean_from_prediction", step) * prediction
        clean = clean.clamp(-CLIP, CLIP)
        mean = self._at(f"{kind}_from_clean", step) * clean + self._at(f"{kind}_from_noisy", step) * noisy
        return Step(mean, self._at(f"{kind}_std", step))

    def guided(self, step: Int64[Tensor, " batch"], noisy: Chunk, predict: Predict, guide: Guide) -> Prediction:
        """Prediction whose denoised chunk is drawn to the guide: pseudo-inverse guidance, then blended by weight.

        Guidance (Song et al. 2023; Black et al. 2025, eq. 2) adds g J^T W (guide - clean), where J = d clean / d noisy
        goes through the field: this is what makes the free actions follow the guided ones. With x = signal clean +
        noise eps and flow time signal / (signal + noise), the paper's weight min(beta, ...) on the velocity becomes
        g = min(beta noise, 1 / signal). A few steps leave the guided actions themselves a tenth off, so these are
        blended; blending alone leaves the free ones where they were.
        """
        from_noisy, from_prediction = self._at("clean_from_noisy", step), self._at("clean_from_prediction", step)
        with torch.enable_grad():
            noisy = noisy.detach().requires_grad_()
            clean = from_noisy * noisy + from_prediction * predict(noisy)
            # Clipped elements stay guidable: the clip is in the error but not in the Jacobian.
            error = guide.weights * (guide.chunk - clean.detach().clamp(-CLIP, CLIP))
            (pull,) = torch.autograd.grad(clean, noisy, error)
        timestep = self.time(step).long()
        gain = torch.minimum(MAX_GUIDANCE * self._at("noise", timestep), 1.0 / self._at("signal", timestep))
        pulled = (clean.detach().clamp(-CLIP, CLIP) + gain * pull).clamp(-CLIP, CLIP)
        return (guide.blend(pulled) - from_noisy * noisy.detach()) / from_prediction

    def is_stochastic(self, step: int) -> bool:
        """Whether the stochastic kernel's standard deviation is positive."""
        return bool(self.get_buffer("stochastic_std")[step] > 0)

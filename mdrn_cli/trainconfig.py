"""What defines a training run: its configuration, checked in one place, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from mdrn_cli.errors import UsageError
from mdrn_cli.losses import LOSSES
from mdrn_cli.model import MDRNConfig
from mdrn_cli.optim import OPTIMIZERS

SCHEDULES = ("cosine", "halving")
# What the paper's section 4.2 says (16 patches, Adam, 1e-4 halved on steps), and the plain choices where it is silent.
# "fast" is our own recipe, the defaults (docs/training.md).
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {},
    "paper": {
        "batch_size": 16,
        "loss": "l1",
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "schedule": "halving",
        "ema": 0.0,
    },
}


@dataclass(frozen=True)
class Distillation:
    """How a student learns from a teacher (paper, section 3.2).

    Args:
        mode: "hads" (a larger teacher at the same noise level) or "hmds" (a teacher at a lower one).
        teacher: path of its checkpoint.
        teacher_sigma: its noise level, 0-255 scale.
        weight: of the distillation loss, at the start of the run.
        final_weight: the same at its end; the weight goes from one to the other in a straight line.
        shared_noise: HMDS only: the teacher sees the student's noise scaled down, not noise of its own.

    Raises:
        UsageError: the mode is unknown or a weight negative.
    """

    mode: str
    teacher: str
    teacher_sigma: float
    weight: float = 0.1
    final_weight: float = 0.0
    shared_noise: bool = True

    def __post_init__(self) -> None:
        if self.mode not in ("hads", "hmds"):
            raise UsageError(f"mode must be hads or hmds, not {self.mode!r}")
        if min(self.weight, self.final_weight) < 0:
            raise UsageError("the weight of distillation cannot be negative")


@dataclass(frozen=True)
class TrainConfig:
    """All that defines a run; stored with it, so that resuming needs the run folder alone.

    Args:
        data: folder tree of photographs.
        val: folder of photographs for validation, or None.
        init: checkpoint to start from, or None.
        color, blocks, features: the network, see MDRNConfig.
        sigma: noise level, 0-255 scale.
        iterations: length of the run, or None for a budget of time.
        time_budget: seconds of training, over all resumes, or None.
        batch_size, patch_size: patches a step, over all processes together, and their side in pixels.
        loss: "l1" (the paper's) or "rmse", see `reconstruction_loss`.
        optimizer: "muon" (see optim.py), "adamw" or "adam".
        learning_rate: peak, of AdamW and Adam.
        muon_learning_rate: peak, of Muon.
        schedule: "cosine" (to zero) or "halving" (in equal parts of the run).
        halvings: how often the second halves the rate.
        warmup: share of the run over which the rates rise first.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights, which are the ones validated and kept.
        seed: of weights, patches and noise.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" (bfloat16 where native), "bfloat16" or "float32".
        compile: torch.compile; None compiles on CUDA only.
        validate_every, save_every: seconds.
        cache_memory: bytes of decoded photographs to hold in memory, more are mapped from disk; None for half of it.
        max_skipped: consecutive non-finite steps after which the run is given up.
        distillation: how the network learns from a teacher, or None.

    Raises:
        UsageError: a value makes no sense.
    """

    data: str
    val: str | None = None
    init: str | None = None
    color: str = "gray"
    blocks: int = 8
    features: int = 64
    sigma: float = 50.0
    iterations: int | None = None
    time_budget: float | None = None
    batch_size: int = 8
    patch_size: int = 64
    loss: str = "rmse"
    optimizer: str = "muon"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    schedule: str = "cosine"
    halvings: int = 4
    warmup: float = 0.02
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool | None = None
    validate_every: float = 300.0
    save_every: float = 60.0
    cache_memory: float | None = None
    max_skipped: int = 50
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        if (self.iterations is None) == (self.time_budget is None):
            raise UsageError("give either a number of iterations or a time budget")
        if not 0 < self.sigma <= 255:
            raise UsageError(f"sigma must be above 0 and at most 255, not {self.sigma:g}")
        for name, known in (("optimizer", OPTIMIZERS), ("loss", LOSSES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        for name in ("batch_size", "patch_size", "iterations", "time_budget", "learning_rate", "clip", "max_skipped"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name.replace('_', ' ')} must be above 0, not {value}")
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema must be at least 0 and below 1, not {self.ema:g}")

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `dataclasses.asdict`."""
        distillation = saved.get("distillation")
        return cls(**{**saved, "distillation": Distillation(**distillation) if distillation else None})

    def flat(self) -> dict[str, Any]:
        """Every value by the name its option has, those of distillation included, as configuration files have them."""
        values = asdict(self)
        return values | (values.pop("distillation") or {})

    @property
    def network(self) -> MDRNConfig:
        """Shape of the network to train."""
        return MDRNConfig(self.color, self.blocks, self.features)

    def extended(self, iterations: int | None, time_budget: float | None) -> TrainConfig:
        """The same run with a larger budget; the schedule becomes that of the larger one, from where the run stands.

        Raises:
            UsageError: the budget is of the other kind, or not larger.
        """
        if iterations is None and time_budget is None:
            return self
        old = (self.iterations or 0, self.time_budget or 0.0)
        new = (iterations or 0, time_budget or 0.0)
        if any((a > 0) != (b > 0) or b < a for a, b in zip(old, new, strict=True)):
            raise UsageError(
                "a run can be extended by a larger budget of the kind it has",
                f"it has {f'{self.iterations} iterations' if self.iterations else f'{self.time_budget:g} seconds'}",
            )
        return replace(self, iterations=iterations, time_budget=time_budget)


CONFIG_KEYS = tuple(f.name for f in fields(TrainConfig) if f.name != "distillation")
DISTILLATION_KEYS = tuple(f.name for f in fields(Distillation))

"""What defines a training run: its configuration, checked in one place, and the presets."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mdrn_cli.errors import MdrnError, UsageError, WeightsError
from mdrn_cli.hardware import PRECISIONS
from mdrn_cli.levels import HIGHEST_TRAINED, check_sigma
from mdrn_cli.losses import LOSSES
from mdrn_cli.manifest import NOISES, WHITE
from mdrn_cli.model import MDRNConfig
from mdrn_cli.optim import OPTIMIZERS

SCHEDULES = ("cosine", "halving")
MODES = ("hads", "hmds")
"""Of distillation."""
# What the paper's section 4.2 says (16 patches, Adam, 1e-4 halved on steps), and plain choices for the rest.
# "fast" is our own recipe, the defaults (docs/training.md).
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {},
    "paper": {
        "batch_size": 16,
        "loss": "l1",
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "schedule": "halving",
        "warmup": 0.0,
        "clip": math.inf,
        "ema": 0.0,
    },
}

Rule = tuple[Callable[[Any], bool], str]
"""What a value must fulfil, and that in words."""
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _one_of(known: Collection[str]) -> Rule:
    return known.__contains__, f"one of {', '.join(known)}"


_POSITIVE: Rule = (lambda value: 0 < value < math.inf, "finite and above 0")
_NOT_NEGATIVE: Rule = (lambda value: 0 <= value < math.inf, "finite and at least 0")
_INTERVAL: Rule = (lambda value: value >= 0, "at least 0")


def _check(settings: TrainConfig | Distillation, rules: Mapping[str, Rule]) -> None:
    """Check every value by its annotation and its rule, if it has one; None, where allowed, has none to fulfil.

    Raises:
        UsageError: a value is of another type or makes no sense.
    """
    for name, annotation in get_type_hints(type(settings)).items():
        value, types = getattr(settings, name), get_args(annotation) or (annotation,)
        if not _is_of(value, types):
            words = " or ".join(_WORDS[kind] for kind in types if kind in _WORDS)
            raise UsageError(f"{name.replace('_', ' ')} must be {words}, not {value!r}")
        fits, words = rules.get(name, (None, ""))
        if fits and value is not None and not fits(value):
            raise UsageError(f"{name.replace('_', ' ')} must be {words}, not {value!r}")


def _is_of(value: object, types: Collection[type]) -> bool:
    if isinstance(value, bool):  # to Python a whole number
        return bool in types
    return isinstance(value, tuple(types)) or (isinstance(value, int) and float in types)


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
        soft_target: share of the teacher's image in the student's target; 0 for the clean patch alone, as in the paper.
            The teacher's image is near the mean of all clean patches that may be behind the noisy one, which makes
            gradients of few patches less noisy.
        teacher_every: steps for each new batch, on which the teacher is run; the other steps use earlier batches again,
            turned, with the images that the teacher gave.

    Raises:
        UsageError: a value is of the wrong type or makes no sense.
    """

    mode: str
    teacher: str
    teacher_sigma: float
    weight: float = 0.1
    final_weight: float = 0.0
    shared_noise: bool = True
    soft_target: float = 0.0
    teacher_every: int = 1

    def __post_init__(self) -> None:
        _check(self, _DISTILLATION_RULES)
        check_sigma(self.teacher_sigma, HIGHEST_TRAINED)
        if self.teacher_every > 1 and not self.soft_target:
            raise UsageError(
                "a teacher asked every few steps has nothing to teach in the others: its images are no target",
                "give --soft-target, or leave --teacher-every out",
            )


_DISTILLATION_RULES = {
    "mode": _one_of(MODES),
    **dict.fromkeys(("weight", "final_weight"), _NOT_NEGATIVE),
    "soft_target": (lambda value: 0 <= value <= 1, "from 0 to 1, a share"),
    "teacher_every": (lambda value: 1 <= value <= 1000, "from 1 to 1000"),
}
_RULES = {
    **dict.fromkeys(("iterations", "time_budget", "batch_size", "patch_size", "max_skipped"), _POSITIVE),
    **dict.fromkeys(("learning_rate", "muon_learning_rate"), _POSITIVE),
    **dict.fromkeys(("validate_every", "save_every", "cache_memory"), _INTERVAL),
    "loss": _one_of(LOSSES),
    "noise": _one_of(NOISES),
    "optimizer": _one_of(OPTIMIZERS),
    "schedule": _one_of(SCHEDULES),
    "precision": _one_of(PRECISIONS),
    "halvings": (lambda value: 0 <= value <= 1000, "from 0 to 1000"),
    "warmup": (lambda value: 0 <= value <= 1, "from 0 to 1, a share of the run"),
    "clip": (lambda value: value > 0, "above 0"),
    "ema": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "seed": (lambda value: -(2**63) <= value < 2**63, "a whole number of 64 bits"),
}


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
        clip: largest norm of the gradient, infinity for any.
        ema: decay of the averaged weights, which are the ones validated and kept.
        seed: of weights, patches and noise.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" (bfloat16 where native), "bfloat16" or "float32".
        compile: have torch compile the network, on CUDA instead of computing by kernels of our own.
        validate_every, save_every: seconds.
        cache_memory: bytes of decoded photographs to hold in memory, more are mapped from disk; None for half of it.
        max_skipped: consecutive non-finite steps after which the run is given up.
        noise: "white", or "camera" of runs by tools/train_camera.py.
        distillation: how the network learns from a teacher, or None.

    Raises:
        UsageError: a value is of the wrong type or makes no sense.
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
    noise: str = WHITE
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        _check(self, _RULES)
        if (self.iterations is None) == (self.time_budget is None):
            raise UsageError(
                "give either a number of iterations or a time budget", "--time-budget 60m, or --iterations N"
            )
        check_sigma(self.sigma, HIGHEST_TRAINED)
        try:
            MDRNConfig(self.color, self.blocks, self.features)
        except WeightsError as error:  # which it would be in a file of weights
            raise UsageError(error.message) from error

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `dataclasses.asdict`.

        Raises:
            MdrnError: an option is missing or unknown.
            UsageError: a value makes no sense.
        """
        distillation = saved.get("distillation")
        try:
            return cls(**{**saved, "distillation": Distillation(**distillation) if distillation else None})
        except TypeError as error:
            reason = str(error).split("() ")[-1]
            raise MdrnError(
                f"the run's options are not those of this version of mdrn ({reason})", "use the version that began it"
            ) from error

    def located(self) -> TrainConfig:
        """The same with absolute paths, so that the run can be resumed from any folder."""
        ours = {name: _absolute(getattr(self, name)) for name in ("data", "val", "init")}
        if self.distillation:
            teacher = _absolute(self.distillation.teacher)
            ours["distillation"] = replace(self.distillation, teacher=teacher)
        return replace(self, **ours)

    def flat(self) -> dict[str, Any]:
        """Every value by the name its option has, those of distillation included, as configuration files have them; and
        what noise it is, where no option gives that."""
        values = asdict(self)
        if self.noise == WHITE:
            values.pop("noise")
        return values | (values.pop("distillation") or {})

    @property
    def network(self) -> MDRNConfig:
        """Shape of the network to train."""
        return MDRNConfig(self.color, self.blocks, self.features)

    def extended(self, iterations: int | None, time_budget: float | None) -> TrainConfig:
        """The same run with a larger budget; the schedule becomes that of the larger one, from where the run stands.

        Raises:
            UsageError: the budget is of the other kind, or smaller.
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


def _absolute(path: str | None) -> Any:
    return path and str(Path(path).absolute())


CONFIG_KEYS = tuple(f.name for f in fields(TrainConfig) if f.name not in ("noise", "distillation"))
DISTILLATION_KEYS = tuple(f.name for f in fields(Distillation))

"""The options that `mdrn train` and `mdrn distill` share, and what they make of a run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdrn_cli.cli.console import parse_bytes, parse_duration, print_warning
from mdrn_cli.cli.options import Device, Offline, Precision, checkpoints, choices, flag, offered, options_given
from mdrn_cli.errors import InputError, MdrnError, UsageError
from mdrn_cli.parallel import launched
from mdrn_cli.paths import exists, is_folder

if TYPE_CHECKING:
    from mdrn_cli.trainconfig import TrainConfig

RUN = "Run"

RunFolder = Annotated[Path | None, typer.Argument(metavar="RUN", help="Run folder; the same as --output.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Run folder.")]
Photographs = Annotated[Path | None, typer.Option(help="Folder tree of photographs to train on.")]
Val = Annotated[Path | None, typer.Option(help="Folder of photographs to validate on.")]
Color = Annotated[str, typer.Option(help="gray or color.", autocompletion=choices("gray", "color"))]
Sigma = Annotated[float, typer.Option(help="Noise level on the 0-255 scale.")]
Init = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint to start from: name, file or run folder; sigma and color mode may differ, blocks be fewer.",
        autocompletion=offered(checkpoints),
    ),
]
Iterations = Annotated[int | None, typer.Option(help="Length of the run in iterations.")]
TimeBudget = Annotated[
    Any, typer.Option(parser=parse_duration, metavar="DURATION", help="Length in time, such as 60m or 1h30m.")
]
BatchSize = Annotated[int, typer.Option(help="Patches a step, over all processes of torchrun together.")]
PatchSize = Annotated[int, typer.Option(help="Side of a patch in pixels.")]
Loss = Annotated[
    str,
    typer.Option(help="l1 (the paper's) or rmse (per patch; nearer to PSNR).", autocompletion=choices("l1", "rmse")),
]
Optimizer = Annotated[str, typer.Option(help="muon, adamw or adam.", autocompletion=choices("muon", "adamw", "adam"))]
LearningRate = Annotated[float, typer.Option(help="Peak rate of AdamW and Adam.")]
MuonLearningRate = Annotated[float, typer.Option(help="Peak rate of Muon.")]
Ema = Annotated[float, typer.Option(help="Decay of the averaged weights.")]
Clip = Annotated[float, typer.Option(help="Largest norm of the gradient; inf for any.")]
Seed = Annotated[int, typer.Option(help="Seed for weights, patches and noise.")]
ValidateEvery = Annotated[
    Any, typer.Option(parser=parse_duration, metavar="DURATION", help="Time between two validations.")
]
SaveEvery = Annotated[Any, typer.Option(parser=parse_duration, metavar="DURATION", help="Time between two saves.")]
CacheMemory = Annotated[
    Any,
    typer.Option(
        parser=parse_bytes,
        metavar="SIZE",
        help="Photographs that take more, decoded, are mapped from disk; half of the memory by default.",
    ),
]
Compile = Annotated[bool | None, flag("--compile/--no-compile", help="torch.compile, instead of our kernels on CUDA.")]
Schedule = Annotated[
    str,
    typer.Option(
        help="Schedule of the learning rates: cosine (to zero) or halving (in equal parts of the run).",
        autocompletion=choices("cosine", "halving"),
    ),
]
Halvings = Annotated[int, typer.Option(help="How often the schedule halving halves the rate.")]
Warmup = Annotated[float, typer.Option(help="Share of the run over which the rates rise first.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="fast (our recipe, the defaults) or paper (section 4.2).",
        autocompletion=choices("fast", "paper"),
        rich_help_panel=RUN,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE.toml", help="Options from a file; those given here win.", rich_help_panel=RUN
    ),
]
Resume = Annotated[
    bool,
    flag(
        "--resume",
        help="Go on with the run in the folder, with the options it began with; a larger budget extends it.",
        rich_help_panel=RUN,
    ),
]
Overwrite = Annotated[bool, flag("--overwrite", help="Replace the run in the folder.", rich_help_panel=RUN)]
Smoke = Annotated[
    bool,
    flag(
        "--smoke",
        help="Two iterations whatever the budget, a validation, a save: does it work here?",
        rich_help_panel=RUN,
    ),
]


def _shared(
    run: RunFolder = None,
    output: Output = None,
    data: Photographs = None,
    val: Val = None,
    color: Color = "gray",
    sigma: Sigma = 50.0,
    init: Init = None,
    iterations: Iterations = None,
    time_budget: TimeBudget = None,
    batch_size: BatchSize = 8,
    patch_size: PatchSize = 64,
    loss: Loss = "rmse",
    optimizer: Optimizer = "muon",
    learning_rate: LearningRate = 1e-3,
    muon_learning_rate: MuonLearningRate = 0.02,
    schedule: Schedule = "cosine",
    halvings: Halvings = 4,
    warmup: Warmup = 0.02,
    ema: Ema = 0.999,
    clip: Clip = 1.0,
    seed: Seed = 0,
    validate_every: ValidateEvery = "5m",
    save_every: SaveEvery = "1m",
    cache_memory: CacheMemory = None,
    device: Device = "auto",
    precision: Precision = "auto",
    compile_: Compile = None,
    _offline: Offline = False,
    preset: Preset = None,
    config: ConfigFile = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    smoke: Smoke = False,
) -> None:
    """The options of every run."""


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of every run after its own. Where both have one, the command's counts; it is called
    with its own alone, the values of the others are in its context."""
    own, shared = (inspect.signature(function, eval_str=True).parameters for function in (command, _shared))
    merged = {**own, **{name: parameter for name, parameter in shared.items() if name not in own}}

    @functools.wraps(command)
    def call(**values: Any) -> None:
        command(**{name: values[name] for name in own})

    # What typer reads.
    call.__signature__ = inspect.Signature(list(merged.values()))  # type: ignore[attr-defined]
    call.__annotations__ = {name: parameter.annotation for name, parameter in merged.items()}
    return call


# Options that configuration files may give as text.
_PARSED = {
    "time_budget": parse_duration,
    "validate_every": parse_duration,
    "save_every": parse_duration,
    "cache_memory": parse_bytes,
}
# Options that are no part of a run's configuration.
_CONTROLS = ("run", "output", "resume", "overwrite", "preset", "config", "smoke", "_offline")
# What may differ each time a run is resumed, besides a larger budget and where its teacher lies.
_NOT_OF_THE_RESULT = ("device", "cache_memory", "data", "val", "validate_every", "save_every")
# Options that have an effect only where another has a value.
_ONLY_WITH = {
    "muon_learning_rate": ("optimizer", "muon"),
    "halvings": ("schedule", "halving"),
    "shared_noise": ("mode", "hmds"),
}
_ON_RESUME = ("run", "output", "resume", "_offline", *_NOT_OF_THE_RESULT, "iterations", "time_budget", "teacher")


def run_folder(ctx: typer.Context) -> Path:
    """The run folder, which may be given in two ways.

    Raises:
        UsageError: it is given in neither, or two are given.
    """
    # Older versions of Typer leave paths as strings there.
    given = {Path(ctx.params[name]) for name in ("run", "output") if ctx.params[name] is not None}
    if not given:
        raise UsageError("no run folder", "give --output RUN")
    if len(given) > 1:
        raise UsageError(f"two run folders, {ctx.params['run']} and --output {ctx.params['output']}", "give one")
    return given.pop()


def resumed_config(ctx: typer.Context) -> TrainConfig:
    """The configuration of the run in the folder, extended by a larger budget if one is given.

    Raises:
        UsageError: an option is given that a run cannot change any more.
        MdrnError: there is no run to resume.
    """
    from mdrn_cli.runfolder import CONFIG_FILE
    from mdrn_cli.runstate import saved_config
    from mdrn_cli.trainconfig import TrainConfig

    given = options_given(ctx)
    if fixed := sorted(given - {*_ON_RESUME}):
        raise UsageError(f"a run goes on with the options it began with, so not with --{_flag(fixed[0])}")
    here = {name: _plain(ctx.params[name]) for name in _NOT_OF_THE_RESULT if name in given}
    run = run_folder(ctx)
    begun = saved_config(run)
    _tell_of_edits(run / CONFIG_FILE, TrainConfig.from_dict(begun).flat())
    config = TrainConfig.from_dict(begun | here)
    _refuse_idle_interval(given, config.val)
    for option, folder in (("data", config.data), ("val", config.val)):
        if folder and not is_folder(Path(folder)):
            raise InputError(f"no folder {folder}", f"where its photographs have moved, give --{option}")
    if config.distillation and "teacher" in given:
        teacher = str(_checkpoint_file(ctx.params["teacher"]))
        config = replace(config, distillation=replace(config.distillation, teacher=teacher))
    budget = {name: ctx.params[name] for name in ("iterations", "time_budget") if name in given}
    return config.extended(budget.get("iterations"), budget.get("time_budget"))


def _tell_of_edits(file: Path, begun: dict[str, Any]) -> None:
    """Warn of options that somebody has changed in the file that tells of them, which has no effect."""
    from mdrn_cli.configfile import read_config

    try:
        written = read_config(file, begun)
    except MdrnError:  # it says nothing, or nothing that would be understood
        return
    edited = sorted(key for key, value in written.items() if value != begun[key])
    if edited and launched().first:
        what = ", ".join(f"{key} = {begun[key]}" for key in edited)
        print_warning(f"{file} has been edited; the run goes on with what it began with: {what}")


def settings(ctx: typer.Context, known: Sequence[str]) -> dict[str, Any]:
    """The value of every option of a new run: as given, else of the configuration file, else of the preset, else
    its default.

    Args:
        ctx: the command under way.
        known: keys that a configuration file may have.

    Raises:
        UsageError: the folder is not empty, preset or file make no sense, or an option would do nothing.
        WeightsError: no checkpoint has the name of `init`, or it cannot be had.
    """
    from mdrn_cli.configfile import read_config
    from mdrn_cli.runfolder import is_empty
    from mdrn_cli.trainconfig import PRESETS

    output = run_folder(ctx)
    file = read_config(Path(ctx.params["config"]), (*known, "preset")) if ctx.params["config"] else {}
    of_file = file.pop("preset", "fast")
    preset = ctx.params["preset"] or of_file
    if preset not in tuple(PRESETS):
        raise UsageError(f"no preset {preset!r}", f"presets are: {', '.join(PRESETS)}")
    if exists(output) and not is_folder(output):
        raise UsageError(f"{output} is no folder", "give a run folder")
    if launched().first and not ctx.params["overwrite"] and not is_empty(output):
        raise UsageError(f"{output} is not empty", "go on with --resume, replace the run with --overwrite")
    given = {_field(name) for name in options_given(ctx)}
    if given & {"iterations", "time_budget"}:
        given |= {"iterations", "time_budget"}  # the one given is the whole budget
    values = {_field(name): value for name, value in ctx.params.items() if name not in _CONTROLS}
    for layer in (PRESETS[preset], file):
        values |= {key: value for key, value in layer.items() if key not in given}
    if ctx.params["smoke"]:
        values |= {"iterations": 2, "time_budget": None}
    for key, (other, value) in _ONLY_WITH.items():
        if key in given and values[other] != value:
            raise UsageError(f"--{_flag(key)} does nothing with --{_flag(other)} {values[other]}", "leave it out")
    if values["data"] is None:
        raise UsageError("no photographs to train on", "give --data FOLDER")
    if ctx.params["smoke"] and values["val"] is None:
        values["val"] = values["data"]
    _refuse_idle_interval(given, values["val"])
    if isinstance(values["init"], str):
        values["init"] = _checkpoint_file(values["init"])
    for key, parse in _PARSED.items():
        if isinstance(values[key], str):
            try:
                values[key] = parse(values[key])
            except typer.BadParameter as error:  # the command line's has been parsed: it is of the file
                raise UsageError(f"{ctx.params['config']}: {key}: {error}") from error
    return {key: _plain(value) for key, value in values.items()}


def _refuse_idle_interval(given: Collection[str], val: object) -> None:
    if "validate_every" in given and val is None:
        raise UsageError("--validate-every does nothing without --val", "leave it out, or give --val FOLDER")


def _plain(value: Any) -> Any:
    """As configurations are stored."""
    return str(value) if isinstance(value, Path) else value


def _checkpoint_file(init: str) -> Path:
    """The file of a checkpoint given by file, run folder or name."""
    from mdrn_cli.weights import all_records, explicit_path, locate, named

    return explicit_path(init) or locate(named(all_records(), init))


def _field(name: str) -> str:
    return name.rstrip("_")


def _flag(name: str) -> str:
    return _field(name).replace("_", "-")

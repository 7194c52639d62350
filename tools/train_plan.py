"""Trains several networks one after another, by a plan: in one process, so that kernels are compiled and photographs
decoded once. For a GPU that is to be had for a short time.

python tools/train_plan.py PLAN.toml --output RUNS
"""

import argparse
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mdrn_cli.distillation import run_distill
from mdrn_cli.errors import MdrnError
from mdrn_cli.release import checkpoint_of
from mdrn_cli.runfolder import is_empty
from mdrn_cli.runlog import Progress
from mdrn_cli.runstate import STATE_FILE, saved_config
from mdrn_cli.trainconfig import DISTILLATION_KEYS, TrainConfig
from mdrn_cli.training import run_train
from mdrn_cli.weights import BUNDLED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FINISHED = "finished"
"""A file in a run folder that tells others that the run is over."""


def configuration(options: dict[str, Any], runs: Path, planned: Collection[str]) -> TrainConfig:
    """That of one run.

    Args:
        options: by their names in TrainConfig and Distillation; `init` and `teacher` may be the name of a run of the
            plan or of a bundled checkpoint.
        runs: folder of the runs.
        planned: names of the runs of the plan.

    Raises:
        MdrnError: an option is unknown or missing, or makes no sense.
    """
    about = {key: options.pop(key) for key in DISTILLATION_KEYS if key in options}
    if "init" in options:
        options["init"] = located(options["init"], runs, planned)
    if "teacher" in about:
        about["teacher"] = located(about["teacher"], runs, planned)
    return TrainConfig.from_dict(options | {"distillation": about}).located()


def located(name: str, runs: Path, planned: Collection[str]) -> str:
    """The checkpoint that a run ends with, or a bundled one; another name is a path.

    Raises:
        MdrnError: the run has not ended.
    """
    if name in planned or (runs / name).is_dir():
        if not finished(runs / name):
            raise MdrnError(f"the run {name} is not finished", "mend it first")
        return str(checkpoint_of(runs / name))
    bundled = BUNDLED / f"{name}.safetensors"
    return str(bundled) if bundled.is_file() else name


def report(progress: Progress) -> None:
    """Tell of validations alone."""
    if progress.psnr is not None:
        where = f"{progress.elapsed:6.1f} s {progress.iteration:7d} steps {progress.rate:6.1f}/s"
        print(
            f"  {where}  loss {progress.loss:.5f}  PSNR {progress.psnr:.3f} dB  skipped {progress.skipped}", flush=True
        )


def main() -> int:
    """Every run of the plan that is not finished; the plan is read anew before each, so that it can be changed. Returns
    1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    tried: set[str] = set()
    failed = 0
    plan: dict[str, Any] = {}
    while True:
        try:
            plan = read_plan(arguments.plan)
        except (OSError, ValueError) as error:
            if not plan:
                parser.error(f"{arguments.plan} is no plan: {error}")
            print(f"the plan as it was, for it is none now: {error}", flush=True)  # it is being changed
        left = [run for run in plan["run"] if run["name"] not in tried and not finished(arguments.output / run["name"])]
        if not left:
            return int(failed > 0)
        options = plan.get("all", {}) | left[0]
        name = options.pop("name")
        tried.add(name)
        planned = {run["name"] for run in plan["run"]}
        sys.argv = ["tools/train_plan.py", arguments.plan.name, name]  # which the run writes down
        failed += not train(name, options, arguments.output, planned)


def read_plan(file: Path) -> dict[str, Any]:
    """A plan, in which every run has a name of its own.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.
    """
    plan = tomllib.loads(file.read_text(encoding="utf-8"))
    runs: Any = plan.get("run")
    tables = isinstance(runs, list) and all(isinstance(run, dict) for run in runs)
    names = [run.get("name") for run in runs] if tables else [None]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError("it has to have tables [[run]], each with a name of its own")
    return plan


def finished(folder: Path) -> bool:
    """Whether a run of the plan is over."""
    return (folder / FINISHED).exists()


def has_begun(config: TrainConfig, folder: Path) -> bool:
    """Whether the state of a run that was cut off lies in its folder; its budget may have been smaller.

    Raises:
        MdrnError: the folder holds another run, or something else.
    """
    if is_empty(folder):
        return False
    if (folder / STATE_FILE).is_file():
        begun = TrainConfig.from_dict(saved_config(folder))
        if begun.extended(config.iterations, config.time_budget) == config:
            return True
    raise MdrnError(f"{folder} holds something else than this run", "give another --output, or remove it")


def train(name: str, options: dict[str, Any], runs: Path, planned: Collection[str]) -> bool:
    """One run, from where it was cut off if it was; what goes wrong with it is told, and the next begins. Returns
    whether it ended well."""
    began = time.monotonic()
    print(f"{time.strftime('%H:%M:%S')} {name}: {options}", flush=True)
    try:
        config = configuration(options, runs, planned)
        run = run_distill if config.distillation else run_train
        run(config, runs / name, has_begun(config, runs / name), report)
    except MdrnError as error:
        print(f"  failed: {error.message} ({error.hint})", flush=True)
        return False
    (runs / name / FINISHED).touch()
    # Most of a folder that is to be brought home, and nothing goes on from it.
    (runs / name / STATE_FILE).unlink(missing_ok=True)
    print(f"  {time.monotonic() - began:.1f} s in all", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())

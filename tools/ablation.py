"""Makes docs/distillation.md: students trained with and without a teacher, all else equal.

    python tools/ablation.py --mode hmds --teacher-sigma 25 --blocks 2 --data ../shared/data/train \
        --val ../shared/data/val --sets ../shared/data/test --iterations 4000 --seeds 3 --runs ../ablation

For each seed there is a plain run and a distilled one, from the same initial weights (drawn by the seed, or those of
--init), over the same patches and noise,
for the same number of iterations; what is measured is the averaged weights at the end. (Under --no-shared-noise the
teacher's noise comes from the same random stream, and the patches differ.) Figures go into docs/distillation.json, run
by run, and the document is written from that file alone. A run that is in it is not run again, unless another set is to
be measured and its folder is gone, or it is of those that do not tell the content of the files they began with; one
that was interrupted is gone on with, and a plain run serves every distilled one of the same settings. What it is
validated on, and in which precision, is not among these: keep to one.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mdrn_cli.bench import measure
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.datasets import open_dataset
from mdrn_cli.distillation import find_teacher, run_distill
from mdrn_cli.engine import Engine
from mdrn_cli.files import write_atomically
from mdrn_cli.paths import sha256_of
from mdrn_cli.runfolder import METRICS_FILE
from mdrn_cli.runstate import STATE_FILE
from mdrn_cli.trainconfig import Distillation, TrainConfig
from mdrn_cli.training import run_train
from mdrn_cli.weights import BEST_FILE, LAST_FILE

DOCUMENT = Path(__file__).parents[1] / "docs" / "distillation.md"
SCHEMA = "mdrn.ablation/1"
VALIDATION = "validation"
# What makes two runs comparable; the rest (paths, intervals, the machine) does not decide the result.
SETTINGS = (
    *("color", "blocks", "features", "sigma", "iterations", "batch_size", "patch_size", "loss", "optimizer"),
    *("learning_rate", "muon_learning_rate", "schedule", "warmup", "clip", "ema"),
)


def describe(config: TrainConfig) -> dict[str, Any]:
    """What identifies a run in the file of results: its settings, its teacher or None, its seed."""
    about = {key: getattr(config, key) for key in SETTINGS} | {"data": Path(config.data).name}
    if config.init:
        about |= _named("init", Path(config.init))
    teacher = asdict(config.distillation) if config.distillation else None
    if teacher:
        teacher |= _named("teacher", Path(teacher["teacher"]))
    return {"settings": about, "distillation": teacher, "seed": config.seed}


def _named(key: str, file: Path) -> dict[str, str]:
    """A checkpoint as a reader knows it, and its content: names are those of others, too, and files are replaced."""
    name = f"{file.parent.name}/{file.name}" if file.name in (BEST_FILE, LAST_FILE) else file.name
    return {key: name, f"{key}_sha256": sha256_of(file)}


def train(config: TrainConfig, runs: Path) -> Path:
    """Run it, or go on with it, in a folder of its own; returns the folder."""
    digest = hashlib.sha256(json.dumps(describe(config)).encode()).hexdigest()[:12]
    folder = runs / f"{config.distillation.mode if config.distillation else 'plain'}-{config.seed}-{digest}"
    runner = run_distill if config.distillation else run_train
    runner(config, folder, (folder / STATE_FILE).is_file(), lambda _progress: None)
    return folder


def figures(folder: Path, config: TrainConfig, names: Sequence[str], sets: Path | None) -> dict[str, Any]:
    """Mean PSNR in dB of a finished run on validation photographs and sets, and its validation curve."""
    engine = Engine(load_checkpoint(folder / LAST_FILE), config.device)
    psnr = {}
    for label, name in ((VALIDATION, str(config.val)), *((name, name) for name in names)):
        result = measure(open_dataset(name, sets, config.color), config.sigma, "", engine)
        psnr[label] = round(result.mean("psnr"), 4)
    with (folder / METRICS_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    curve = [[int(row["iteration"]), float(row["psnr"])] for row in rows if row["psnr"]]
    return {"psnr": psnr, "curve": curve, "seconds": float(rows[-1]["elapsed"]) if rows else 0.0}


def ablate(
    config: TrainConfig, seeds: int, runs: Path, names: Sequence[str], sets: Path | None, document: Path
) -> None:
    """Bring the results up to `seeds` pairs of runs, and the document with them."""
    for name in names:  # what is not there is told of before any training
        open_dataset(name, sets, config.color)
    results = document.with_suffix(".json")
    about: dict[str, Any] = {"schema": SCHEMA, "runs": []}
    if results.is_file():
        about = json.loads(results.read_text())
        for run in filter(lambda run: run["distillation"], about["runs"]):  # of before there were these
            run["distillation"].setdefault("soft_target", Distillation.soft_target)
            run["distillation"].setdefault("teacher_every", Distillation.teacher_every)
    for seed in range(seeds):
        for arm in (replace(config, distillation=None, seed=seed), replace(config, seed=seed)):
            identity = describe(arm)
            known = [run for run in about["runs"] if all(run[key] == identity[key] for key in identity)]
            if known and set(names) <= known[0]["psnr"].keys():
                continue
            wanted = dict.fromkeys([*names, *(name for run in known for name in run["psnr"] if name != VALIDATION)])
            found = identity | figures(train(arm, runs), arm, list(wanted), sets)
            about["runs"] = [*(run for run in about["runs"] if run not in known), found]
            write_atomically(results, (json.dumps(about, indent=1) + "\n").encode())
    write_atomically(document, markdown(about["runs"]).encode())
    with suppress(ImportError):
        draw(about["runs"], document.with_suffix(".png"))


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and, of several, sample standard deviation."""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def pairs(runs: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], list[tuple[dict[str, Any], dict[str, Any]]]]]:
    """For each way to distill, what it is and its (plain, distilled) runs, seed by seed."""
    found: dict[str, Any] = {}
    for run in (run for run in runs if run["distillation"]):
        same = [
            r for r in runs if not r["distillation"] and (r["settings"], r["seed"]) == (run["settings"], run["seed"])
        ]
        key = json.dumps([run["settings"], run["distillation"]], sort_keys=True)
        found.setdefault(key, (run, []))[1].extend((plain, run) for plain in same)
    return [(run, both) for run, both in found.values() if both]


def section(run: dict[str, Any], both: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """A heading, the settings and a table of one way to distill."""
    settings, teacher = run["settings"], run["distillation"]
    columns = [name for name in run["psnr"] if all(name in r["psnr"] for pair in both for r in pair)]
    begun = f", from `{settings['init']}`" if "init" in settings else ""
    own = "" if teacher["mode"] == "hads" or teacher["shared_noise"] else ", noise of its own"
    soft = f", soft target {teacher['soft_target']:g}" if teacher.get("soft_target") else ""
    soft += f", asked every {teacher['teacher_every']} steps" if teacher.get("teacher_every", 1) > 1 else ""
    lines = [
        f"## {teacher['mode'].upper()}: {settings['color']} {settings['sigma']:g}, B = {settings['blocks']}",
        "",
        f"Teacher `{teacher['teacher']}` at sigma {teacher['teacher_sigma']:g}{own}; weight {teacher['weight']:g} to "
        f"{teacher['final_weight']:g}{soft}. {settings['iterations']} iterations of {settings['batch_size']} patches "
        f"of {settings['patch_size']}x{settings['patch_size']}, {settings['optimizer']}, {settings['loss']}{begun}; "
        f"seeds {', '.join(str(plain['seed']) for plain, _ in both)}.",
        "",
        f"| student | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for label, index in (("plain", 0), ("distilled", 1)):
        cells = [mean_and_spread([pair[index]["psnr"][name] for pair in both]) for name in columns]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    gains = [mean_and_spread([ours["psnr"][name] - plain["psnr"][name] for plain, ours in both]) for name in columns]
    return [*lines, f"| gain, seed by seed | {' | '.join(gains)} |", ""]


# By hand: to be written anew when figures are added that it speaks of.
VERDICT = """\
In short, first for students that begin from trained networks, under the bundled teacher `mdrn-gray-25`, on validation
photographs:

- HADS gains 0.015 dB (0.015 ± 0.004 over three seeds, and as much on Set12 and BSD68): gray 25, B = 2, 300 iterations
  from `mdrn-2b-gray-15`. That is 3.4 times the spread, and a t-test of three differences asks for 2.5: it helps, a
  little. Of its time these runs, whose cores were shared, say little (0.9, 3.8 and 1.9 times that of the plain one).
- HMDS of eight blocks does not help at this length: gray 50, 250 iterations from `mdrn-gray-25`, 0.003 dB (0.003 ±
  0.010 over three seeds), and on Set12 and BSD68 it harms: 0.019 and 0.010 dB less, with every seed, 2.6 and 2.7 times
  the spread. On a core of a CPU such a run takes seven minutes without a teacher and eleven with one. Longer ones, with
  no plain run beside them, are in [experiments.md](experiments.md): they show no gain that is not of training on.

and for students of two blocks, gray, sigma 50, 1000 iterations from fresh weights:

- HADS gains 0.045 dB on average (0.08, 0.01 and 0.05 over three seeds), HMDS 0.024 (0.07, 0.01, -0.02). Seeds alone
  differ by 0.13 dB, and three of them are few: neither 0.045 ± 0.037 nor 0.024 ± 0.046 is significant. HADS may help, a little; from fresh weights it is not shown.
- A run with a teacher takes longer, by the seconds in `distillation.json` (seeds 1 and 2, cores shared with other
  work): 285 and 279 s without, 438 to 522 with HMDS (1.5 to 1.9 times), 683 and 850 with HADS (2.4 and 3.0 times).
  What the same time gives without a teacher was not measured.
- Noise of the teacher's own instead of the student's scaled down gains nothing (HMDS: 0.000 ± 0.082 dB against
  0.024 ± 0.046), so noise is shared. A weight that stays 0.1 (0.029 ± 0.037) and one that falls to zero cannot be
  told apart.
- The weight (HMDS, first seed): 0.03 gives 26.812 dB, 0.1 26.875, 0.3 26.867, 1 26.870; for HADS 0.1 gives 26.882,
  0.3 26.900. From 0.1 on it does not matter, as far as one seed can say, and 0.1 is the default.
- The teacher of this HADS, `mdrn-gray-50-short`, was grown from `mdrn-2b-gray-50` and trained for 24 minutes only, and
  is not bundled; a better one may give more.

A pair of these runs again, the plain one and HMDS with the first seed (the teacher is the bundled
`mdrn-2b-gray-25`, which may have been replaced since):

```sh
mdrn train --data train --val val --blocks 2 --iterations 1000 --seed 0 --output plain-0
mdrn distill --mode hmds --teacher-sigma 25 --data train --val val --blocks 2 --iterations 1000 --seed 0 --output hmds-0
```

and the first of those that begin from trained networks, HADS and HMDS (all that is named here may have been replaced
since, too):

```sh
mdrn train --data train --blocks 2 --sigma 25 --init mdrn-2b-gray-15 --optimizer adamw --iterations 300 --output p25
mdrn distill --mode hads --sigma 25 --data train --init mdrn-2b-gray-15 --optimizer adamw --iterations 300 --output h25
mdrn train --data train --blocks 8 --sigma 50 --init mdrn-gray-25 --optimizer adamw --iterations 250 --output p50
mdrn distill --mode hmds --teacher-sigma 25 --data train --init mdrn-gray-25 --optimizer adamw --iterations 250 --output m50
```
"""  # noqa: E501 (a command is one line)


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """The document: the verdict, and a section for each way to distill."""
    lines = [
        "# Distillation",
        "",
        "Made by `tools/ablation.py` from `distillation.json`, which has every run. PSNR in dB under the protocol of",
        "docs/results.md: mean and sample standard deviation over the seeds. Both students of a seed start from the",
        "same weights and train for the same number of iterations; the averaged weights at the end are measured.",
        "`distillation.png` has the curves, of those validated at the end alone the last points.",
        "",
        *VERDICT.splitlines(),
        "",
    ]
    for run, both in pairs(runs):
        lines += section(run, both)
    return "\n".join(lines).rstrip() + "\n"


def draw(runs: Sequence[dict[str, Any]], output: Path) -> None:
    """Validation PSNR over iterations of every run, a panel for each way to distill. Needs matplotlib."""
    from matplotlib.figure import Figure

    found = pairs(runs)
    figure = Figure(figsize=(8, 4 * len(found)), layout="constrained")
    for axis, (run, both) in zip(figure.subplots(len(found), squeeze=False)[:, 0], found, strict=True):
        for pair in both:
            for one, color, name in zip(pair, ("tab:gray", "tab:blue"), ("plain", "distilled"), strict=True):
                label = name if pair is both[0] else None
                axis.plot(*zip(*one["curve"], strict=True), marker=".", color=color, label=label)
        teacher = run["distillation"]
        axis.set_title(f"{teacher['mode'].upper()}, teacher {teacher['teacher']}, weight {teacher['weight']:g}")
        axis.set_ylabel("validation PSNR (dB)")
        axis.legend()
    axis.set_xlabel("iteration")
    figure.savefig(output, dpi=110)


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = TrainConfig(data="", iterations=1)
    parser.add_argument("--mode", choices=("hads", "hmds"), required=True)
    parser.add_argument("--teacher", help="name or file; as `mdrn distill` chooses by default")
    parser.add_argument("--teacher-sigma", type=float, help="the student's own for hads")
    parser.add_argument("--init", help="checkpoint that the students begin from, a file")
    parser.add_argument("--weight", type=float, default=Distillation.weight)
    parser.add_argument("--final-weight", type=float, default=Distillation.final_weight)
    parser.add_argument("--soft-target", type=float, default=Distillation.soft_target)
    parser.add_argument("--teacher-every", type=int, default=Distillation.teacher_every)
    parser.add_argument("--shared-noise", action=argparse.BooleanOptionalAction, default=True)
    for name in ("data", "val"):
        parser.add_argument(f"--{name}", required=True, help="folder of photographs")
    parser.add_argument("--sets", type=Path, help="folder that holds the benchmark sets")
    parser.add_argument("--set", action="append", help="benchmark set, may be repeated; Set12 and BSD68 by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, required=True)
    for name in (
        "blocks",
        "batch_size",
        "patch_size",
        "sigma",
        "learning_rate",
        "muon_learning_rate",
        "validate_every",
    ):
        value = 2 if name == "blocks" else getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    for name in ("color", "loss", "optimizer", "device", "precision"):
        parser.add_argument(f"--{name}", default=getattr(defaults, name))
    parser.add_argument("--runs", type=Path, required=True, help="where the run folders go")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="its .json and .png lie beside it")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Run what is missing and write the document."""
    a = parse_arguments(given)
    teacher_sigma = a.sigma if a.teacher_sigma is None else a.teacher_sigma
    teacher = find_teacher(a.teacher, a.mode, a.color, teacher_sigma, a.blocks)
    config = TrainConfig(
        data=a.data,
        val=a.val,
        color=a.color,
        blocks=a.blocks,
        init=a.init,
        sigma=a.sigma,
        iterations=a.iterations,
        batch_size=a.batch_size,
        patch_size=a.patch_size,
        loss=a.loss,
        optimizer=a.optimizer,
        learning_rate=a.learning_rate,
        muon_learning_rate=a.muon_learning_rate,
        device=a.device,
        precision=a.precision,
        validate_every=a.validate_every,
        distillation=Distillation(
            a.mode,
            str(teacher),
            teacher_sigma,
            a.weight,
            a.final_weight,
            a.shared_noise,
            a.soft_target,
            a.teacher_every,
        ),
    )
    ablate(config, a.seeds, a.runs, a.set or ("Set12", "BSD68"), a.sets, a.document)


if __name__ == "__main__":
    main()

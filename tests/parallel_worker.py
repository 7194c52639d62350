"""What tests/test_parallel.py runs in each of two processes: `parallel_worker.py PHOTOS FOLDER` as by torchrun."""

import json
import math
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from conftest import tiny_config

from mdrn_cli import fit as fit_module
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.devices import limit_threads
from mdrn_cli.distillation import distilled_loss, frozen
from mdrn_cli.errors import MdrnError
from mdrn_cli.fit import fit
from mdrn_cli.parallel import Group, launched
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import read_photographs
from mdrn_cli.runstate import STATE_FILE, saved_config
from mdrn_cli.trainconfig import TrainConfig
from mdrn_cli.training import initial_model, plain_loss

CPU = torch.device("cpu")


def gradients(config: TrainConfig, group: Group) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the first step of a run goes by, as one vector, and the patches this process saw for it."""
    model, plain, seen = initial_model(config), plain_loss(config.sigma, config.loss), []

    def step_loss(network, clean, draw_noise, done):
        seen.append(clean)
        return plain(network, clean, draw_noise, done)

    averages = []

    class Watched(Group):
        def average(self, tensors):
            super().average(tensors)
            averages.append(torch.cat([tensor.reshape(-1) for tensor in tensors]))

    sampler = PatchSampler(read_photographs(Path(config.data), config.color), config.patch_size, CPU)
    folder = Path(sys.argv[2]) / f"gradients-{group.size}"
    folder.mkdir(exist_ok=True)
    watched = Watched(**asdict(group))
    fit(config, model, step_loss, sampler, None, folder, False, lambda _p: None, watched)
    return averages[0], seen


def ends(config: TrainConfig, group: Group, name: str, at_step) -> dict[str, object]:
    """How a run ends in this process when `at_step(step)` is multiplied into its loss."""
    model, plain, steps = initial_model(config), plain_loss(config.sigma, config.loss), []

    def step_loss(*arguments):
        steps.append(1)
        return plain(*arguments) * at_step(len(steps))

    sampler = PatchSampler(read_photographs(Path(config.data), config.color), config.patch_size, CPU)
    folder = Path(sys.argv[2]) / name
    folder.mkdir(exist_ok=True)
    try:
        counters = fit(config, model, step_loss, sampler, None, folder, False, lambda _p: None, group)
    except (MdrnError, KeyboardInterrupt) as error:
        return {"error": type(error).__name__, "steps": len(steps)}
    weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).double()
    return {"steps": len(steps), "skipped": counters.skipped, "sum": float(weights.sum()), "elapsed": counters.elapsed}


def resume(folder: Path, group: Group) -> int:
    """Go on with a distillation that one process began, to twice its length."""
    saved = TrainConfig.from_dict(saved_config(folder))
    config = saved.extended(2 * saved.iterations, None)
    teacher = frozen(load_checkpoint(Path(config.distillation.teacher)).build(), CPU)
    loss = distilled_loss(config.sigma, config.loss, config.distillation, teacher.forward_features)
    sampler = PatchSampler(read_photographs(Path(config.data), config.color), config.patch_size, CPU)
    if not group.first:
        delay(folder)
    return fit(config, initial_model(config), loss, sampler, None, folder, True, lambda _p: None, group).iteration


def delay(folder: Path) -> None:
    """Have the configuration of a run read late: what the first process saves meanwhile must not be met half-way."""
    before = (folder / STATE_FILE).read_bytes()

    def late(folder: Path) -> dict[str, object]:
        time.sleep(1)
        assert (folder / STATE_FILE).read_bytes() == before, "replaced before all have read it"
        return saved_config(folder)

    fit_module.saved_config = late  # type: ignore[assignment]


def main() -> None:
    """Run everything; leaves `RANK.json` in the folder."""
    group, folder = launched(), Path(sys.argv[2])
    limit_threads(group.local_size)
    config = tiny_config(sys.argv[1], batch_size=4, iterations=1)
    found: dict[str, object] = {"threads": torch.get_num_threads()}
    with group.connected("cpu"):
        together, ours = gradients(config, group)
        found["patches"] = ours[0].double().mean(dim=(1, 2, 3)).tolist()
        if group.first:
            alone, whole = gradients(config, Group())
            found["whole"] = whole[0].double().mean(dim=(1, 2, 3)).tolist()
            found["difference"] = float((together - alone).norm() / alone.norm())

        longer, bad_here = replace(config, iterations=8), {2, 3} if group.rank == 1 else {6}
        found["skipping"] = ends(longer, group, "skipping", lambda step: math.nan if step in bad_here else 1)
        limited = replace(config, iterations=100, max_skipped=3)
        found["diverging"] = ends(
            limited, group, "diverging", lambda step: math.nan if step > 4 and group.rank == 1 else 1
        )

        def interrupt(step: int) -> float:
            if step == 5 and group.rank == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return 1

        found["interrupted"] = ends(replace(config, iterations=100), group, "interrupted", interrupt)
        timed = replace(config, iterations=None, time_budget=0.5)
        found["timed"] = ends(timed, group, "timed", lambda _step: 1)
        found["resumed"] = resume(folder / "resumed", group)
    tasks = Path("/proc/self/task")  # where there is such a thing, on Linux
    found["left"] = [task.name for task in tasks.glob("*") if "gloo" in (task / "comm").read_text()]
    (folder / f"{group.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()

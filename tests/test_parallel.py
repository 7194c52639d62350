"""Data-parallel training in two real processes, as torchrun starts them, on the CPU."""

import csv
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import silent, tiny_config
from safetensors.torch import load_file

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.distillation import run_distill
from mdrn_cli.errors import DeviceError, UsageError
from mdrn_cli.parallel import Group, launched
from mdrn_cli.runstate import saved_config
from mdrn_cli.trainconfig import Distillation, TrainConfig
from mdrn_cli.training import initial_model, run_train

PATHS = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]


def environment(**more: str) -> dict[str, str]:
    """Of a process of a test: as that has it by then, with a cache of its own."""
    return {**os.environ, "COLUMNS": "200", "PYTHONPATH": os.pathsep.join(filter(None, PATHS)), **more}


def torchrun(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def as_by_torchrun(*arguments: object, timeout: float = 240) -> list[tuple[int, str]]:
    """Exit status and stderr of each of two processes, without the one that would start and watch them."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(found.getsockname()[1])}
    processes = []
    for rank in ("0", "1"):
        place |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        command = [sys.executable, *map(str, arguments)]
        processes.append(subprocess.Popen(command, env=environment(**place), stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=timeout)[1] for process in processes]
    return [(process.returncode, stderr) for process, stderr in zip(processes, said, strict=True)]


def flat(weights) -> torch.Tensor:
    return torch.cat([weights[name].reshape(-1).double() for name in sorted(weights)])


def drift(a: Path, b: Path, start) -> float:
    """How far two results lie apart, relative to the way from the start."""
    first, second, origin = flat(load_file(a)), flat(load_file(b)), flat(start)
    return float((first - second).norm() / (first - origin).norm())


def test_two_processes_train_as_one_and_only_the_first_writes_and_prints(photo_folder, tmp_path):
    run = tmp_path / "run"
    arguments = ["train", "--data", photo_folder, "--val", photo_folder, "--blocks", 1, "--batch-size", 4]
    arguments += ["--patch-size", 16, "--precision", "float32", "--optimizer", "adamw", "--device", "cpu"]
    done = torchrun("-m", "mdrn_cli", *arguments, "--iterations", 6, "-o", run)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("6 iterations in") == 1
    assert done.stderr.count("iteration 6: PSNR") == 1
    with (run / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert len(list((run / "samples").iterdir())) == 1
    assert json.loads((run / "environment.json").read_text())["processes"] == 2

    config = TrainConfig.from_dict(saved_config(run))
    run_train(config, tmp_path / "alone", False, silent)
    with (tmp_path / "alone" / "metrics.csv").open() as file:
        (alone,) = csv.DictReader(file)
    assert float(row["loss"]) == pytest.approx(float(alone["loss"]), rel=1e-3)
    assert float(row["psnr"]) == pytest.approx(float(alone["psnr"]), abs=0.02)
    start = initial_model(config).state_dict()
    assert drift(run / "last.safetensors", tmp_path / "alone" / "last.safetensors", start) < 0.05

    # One process goes on with what two began, as it does with its own.
    longer = config.extended(12, None)
    for folder in ("run", "alone"):
        run_train(longer, tmp_path / folder, True, silent)
    assert load_checkpoint(run / "last.safetensors").record["iteration"] == 12
    assert drift(run / "last.safetensors", tmp_path / "alone" / "last.safetensors", start) < 0.05


def test_processes_agree_on_every_decision(photo_folder, tmp_path, tiny_weights):
    config = tiny_config(photo_folder, batch_size=4, iterations=4, optimizer="adamw")
    config = replace(config, distillation=Distillation("hmds", str(tiny_weights("gray", 25.0, 1)), 25.0))
    for folder in ("resumed", "alone"):
        run_distill(config, tmp_path / folder, False, silent)
    config = config.extended(8, None)
    run_distill(config, tmp_path / "alone", True, silent)

    for status, said in as_by_torchrun(Path(__file__).parent / "parallel_worker.py", photo_folder, tmp_path):
        assert status == 0, said
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))

    assert first["difference"] < 1e-5, "the gradient is that of one process with the whole batch"
    assert first["whole"] == pytest.approx([*first["patches"], *second["patches"]])
    assert len({*first["patches"], *second["patches"]}) == 4, "every process sees patches of its own"

    assert first["skipping"]["skipped"] == second["skipping"]["skipped"] == 3
    assert first["skipping"]["sum"] == second["skipping"]["sum"], "the weights stay the same, to the bit"
    assert first["diverging"] == second["diverging"]
    assert first["interrupted"] == second["interrupted"]
    assert first["diverging"]["error"] == "SharedError"
    assert load_checkpoint(tmp_path / "diverging" / "last.safetensors").record["iteration"] == 4
    assert first["interrupted"] == {"error": "KeyboardInterrupt", "steps": 5}
    assert load_checkpoint(tmp_path / "interrupted" / "last.safetensors").record["iteration"] == 5
    assert first["timed"] == second["timed"], "the first one's clock ends the run"
    assert first["timed"]["steps"] > 1

    assert first["resumed"] == second["resumed"] == 8
    last = [tmp_path / folder / "last.safetensors" for folder in ("resumed", "alone")]
    assert drift(*last, initial_model(config).state_dict()) < 0.05
    assert first["threads"] == second["threads"] == max(len(os.sched_getaffinity(0)) // 2, 1)
    assert first["left"] == second["left"] == [], "no thread of the group, which would abort the process as it ends"


def test_what_the_first_process_alone_cannot_write_is_told_and_ends_them_all(photo_folder, tmp_path):
    run = tmp_path / "run"
    config = tiny_config(photo_folder, iterations=1)
    run_train(config, run, False, silent)
    (run / "last.safetensors").unlink()
    (run / "last.safetensors").mkdir()  # met at the first save, while the other process is in its first step
    first, second = as_by_torchrun("-m", "mdrn_cli", "train", "--resume", run, "--iterations", 100)
    assert (first[0], second[0]) == (1, 1), "and not by SIGABRT"
    assert [line for line in (first[1] + second[1]).splitlines() if line.startswith("error:")] == [
        f"error: cannot write {run / 'last.safetensors'} (Is a directory)"
    ]
    assert "terminate called" not in first[1] + second[1]
    assert saved_config(run)["iterations"] == 100


@pytest.mark.parametrize("processes", [1, 2])
def test_after_an_error_no_interpreter_is_taken_down_under_threads_of_the_group(processes):
    rank = processes - 1
    place = {"RANK": rank, "WORLD_SIZE": processes, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes}
    program = (
        "import atexit, os, sys; from mdrn_cli.__main__ import main; atexit.register(os.write, 2, b'taken down')\n"
        "sys.argv = ['mdrn', 'no-such-command']; sys.exit(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MASTER_ADDR": "localhost", **{name: str(value) for name, value in place.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ("taken down" in ended.stderr) == (processes == 1)


def test_a_batch_is_divided_or_refused():
    shares = [range(12)[Group(rank, 3).share(12)] for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(UsageError, match="8 patches cannot be divided equally among 3"):
        Group(0, 3).share(8)


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    second = Group(1, 2, 1, 2)
    assert Group().device("auto") == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert second.device("auto") == second.device("cuda") == "cuda:1"
    assert second.device("cpu") == "cpu"
    with pytest.raises(UsageError, match="cannot all use cuda:0"):
        second.device("cuda:0")
    with pytest.raises(DeviceError, match="3 processes but 2 GPUs"):
        Group(0, 3, 0, 3).device("auto")


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("RANK", "1")
    assert launched() == Group()


def test_each_process_takes_its_gpu_the_only_one_of_a_machine_too(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for device in ("cuda", "cuda:1"):
        with Group(1, 2, 0, 1).connected(device):
            pass
    assert taken == [0, 1]
    for device in ("cuda", "cuda:1"):
        with Group().connected(device):
            pass
    assert taken == [0, 1, 1], "alone it stays on the current one unless another is named"

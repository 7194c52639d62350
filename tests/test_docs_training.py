"""Every command of docs/training.md and docs/distillation.md that trains runs: in the order of the pages, in its
`--smoke` form, in a folder that has what they name, photographs being tiny."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from conftest import run_mdrn
from PIL import Image
from torch.distributed.run import get_args_parser

from mdrn_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mdrn_cli.model import MDRN, MDRNConfig

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "docs" / name for name in ("training.md", "distillation.md")]
TRAINS = re.compile(r"(?:mdrn|torchrun .* -m mdrn_cli) (?:train|distill) ")
# Instead of what a page says that would take long here.
SMALL = {"--batch-size": "2", "--iterations": "2"}


def lines() -> list[str]:
    blocks = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    return [line for block in blocks for line in block.splitlines() if TRAINS.match(line)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo) -> Path:
    root = tmp_path_factory.mktemp("training")
    for name in ("photos", "train", "val"):
        (root / name).mkdir()
        for k in range(2):
            Image.fromarray(photo[100 * k : 100 * k + 40, :48]).save(root / name / f"{k}.png")
    (root / "run8").mkdir()
    config = MDRNConfig("gray", 8)
    teacher = Checkpoint(config, 50.0, MDRN(config).state_dict(), {})
    save_checkpoint(root / "run8" / "best.safetensors", teacher, torch.float32)
    (root / "tiny.toml").write_text('patch_size = 16\nbatch_size = 1\ndevice = "cpu"\n')
    return root


def small(line: str) -> list[str]:
    """The words of a line, made to take seconds."""
    words = shlex.split(line)
    words = [SMALL.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    if "--resume" in words:
        return words
    return [*words, "--smoke", "--overwrite", *([] if "--config" in words else ["--config", "tiny.toml"])]


def run(words: list[str], folder: Path) -> tuple[int, str]:
    """Under torchrun, too, in one process; several are those of tests/test_parallel.py."""
    if words[0] == "torchrun":
        asked = get_args_parser().parse_args(words[1:])
        assert (asked.module, asked.training_script) == (True, "mdrn_cli")
        assert int(asked.nproc_per_node) > 1
        words = ["mdrn", *asked.training_script_args]
    done = run_mdrn(*words[1:], cwd=folder)
    return done.returncode, done.stderr


def test_the_pages_have_commands_of_every_kind():
    kinds = {(words[0], word) for words in map(shlex.split, lines()) for word in words if word in ("train", "distill")}
    assert kinds == {("mdrn", "train"), ("mdrn", "distill"), ("torchrun", "train")}


@pytest.mark.parametrize("number", range(len(lines())), ids=lambda n: lines()[n])
def test_command(folder, number):
    words = small(lines()[number])
    code, said = run(words, folder)
    assert code == 0, said
    output = folder / words[words.index("--resume" if "--resume" in words else "--output") + 1]
    assert f"checkpoints in {output.name}" in said
    assert load_checkpoint(output / "last.safetensors").record["iteration"] == 2

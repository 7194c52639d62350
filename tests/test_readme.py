"""The command lines of the documents exist: each `mdrn` line parses, with options the command has."""

import re
import runpy
import shlex
from functools import cache
from pathlib import Path

import pytest
from conftest import run_mdrn
from PIL import Image

PROJECT = Path(__file__).parents[1]
DOCUMENTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]


def command_lines() -> list[str]:
    """Every `mdrn ...` line of the shell blocks, without what follows a pipe, a redirection or a comment."""
    lines = []
    for document in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                for part in re.split(r"[|>#]", line):
                    found = re.search(r"\bmdrn (.*)", part)
                    if found:
                        lines.append(found[1].strip())
    return lines


@cache
def options_of(command: tuple[str, ...]) -> str:
    return run_mdrn(*command, "--help").stdout


def test_there_are_command_lines():
    assert len(command_lines()) > 10


def test_the_demonstration_restores_its_photograph(tmp_path, monkeypatch, capsys):
    """`make demo`, of a part of it."""
    demo = runpy.run_path(str(PROJECT / "examples" / "demo.py"))
    with Image.open(demo["PHOTO"]) as photo:
        photo.crop((100, 60, 228, 156)).save(tmp_path / "part.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(demo["main"].__globals__, "PHOTO", tmp_path / "part.png")
    demo["main"]()
    noisy, restored = (float(db) for db in re.findall(r"([\d.]+) dB", capsys.readouterr().out))
    assert restored > noisy + 8
    assert Image.open(tmp_path / demo["OUTPUT"]).size == (256, 96)


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_a_command_line_uses_what_there_is(line):
    words = shlex.split(line)
    command = tuple(words[:2] if words[0] in ("weights", "data", "cache") else words[:1])
    shown = options_of(command)
    assert "Usage" in shown
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", shown), f"{word} is no option of {command}"

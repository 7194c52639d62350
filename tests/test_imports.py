"""Data flows one way (CONTRIBUTING.md): cli -> pipelines -> parts -> leaves; a leaf imports only errors."""

import ast
from pathlib import Path

import pytest

import mdrn_cli

PACKAGE = Path(mdrn_cli.__file__).parent
LEAVES = {
    "paths",
    "pixels",
    "configfile",
    "exif",
    "png",
    "bmp",
    "tiff",
    "webp",
    "icc",
    "nesting",
    "jpeg",
    "stretch",
    "arguments",
    "levels",
    "model",
    "losses",
    "metrics",
    "tiling",
    "ensemble",
    "optim",
    "parallel",
    "interrupts",
    "freedmemory",
    "hardware",
    "locks",
    "gpukernels",
    "recording",
}
PARTS = {
    "metadata",
    "formats",
    "deep",
    "picture",
    "compare",
    "image",
    "content",
    "decoding",
    "tiffreading",
    "tiffwriting",
    "encoding",
    "pipes",
    "files",
    "places",
    "jobs",
    "naming",
    "collisions",
    "noise",
    "blocknoise",
    "grain",
    "levelfunction",
    "blocks",
    "drawn",
    "alike",
    "grid",
    "unseen",
    "white",
    "clipping",
    "coarse",
    "denoisers",
    "monochrome",
    "passes",
    "tilewise",
    "manifest",
    "checkpoint",
    "checkpointname",
    "addresses",
    "fetch",
    "cache",
    "cachecontent",
    "weights",
    "devices",
    "engine",
    "fused",
    "gpufunctions",
    "fusedgpu",
    "peers",
    "datasets",
    "patches",
    "photographs",
    "onnxexport",
    "runtimes",
    "runfolder",
    "runstate",
    "trainconfig",
    "runlog",
    "validation",
    "steps",
    "replay",
}
PIPELINES = {
    "restore",
    "estimation",
    "api",
    "outcome",
    "replacing",
    "batch",
    "bench",
    "fit",
    "training",
    "distillation",
    "release",
    "provenance",
    "results",
    "speed",
}
LEVEL = {"errors": 0, "": 0} | dict.fromkeys(LEAVES, 1) | dict.fromkeys(PARTS, 2) | dict.fromkeys(PIPELINES, 3)
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))


def level(module: str) -> int:
    top = module.split("/")[0]
    return 4 if top in ("cli", "__main__") else LEVEL[top]


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports, inside functions too."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    found = set()
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{module} has a relative import"
            names = [statement.module or ""]
            if statement.module in ("mdrn_cli", "mdrn_cli.cli"):
                names = [f"{statement.module}.{alias.name}" for alias in statement.names]
        elif isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        else:
            continue
        for name in names:
            if name.startswith("mdrn_cli."):
                path = name.removeprefix("mdrn_cli.").replace(".", "/")
                found.add(
                    path if (PACKAGE / f"{path}.py").is_file() or (PACKAGE / path).is_dir() else path.split("/")[0]
                )
    return found - {"__version__"}


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__init__"])
def test_imports_go_down(module):
    for other in imported(module):
        assert level(other) <= level(module), f"{module} imports {other}"
        if level(module) == 1:
            assert other == "errors", f"the leaf {module} imports {other}"


def test_there_are_no_cycles():
    graph = {module: imported(module) for module in MODULES}
    done: set[str] = set()
    while remaining := graph.keys() - done:
        free = {m for m in remaining if not (graph[m] & graph.keys()) - done - {m}}
        assert free, f"a cycle among {sorted(remaining)}"
        done |= free


def test_every_level_is_of_a_module():
    assert set(LEVEL) - {""} <= {module.split("/")[0] for module in MODULES}

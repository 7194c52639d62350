"""Mutation testing of small modules: each change of a comparison, an operator or a number must make their tests fail.

    python tools/mutation.py tiling metrics noise manifest

prints the changes that no test notices. Those that change nothing a caller can see are listed in docs/reliability.md.
Runs in forked processes that have torch loaded, so that a mutant costs what its tests cost.
"""

import argparse
import ast
import copy
import importlib
import importlib.util
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COARSE = "test_the_level_found_is_what_it_was_when_it_was_measured"
TESTS = {
    "tiling": ["tests/test_tiling.py"],
    "metrics": ["tests/test_metrics.py"],
    "noise": ["tests/test_metrics.py"],
    "blocknoise": ["tests/test_metrics.py"],
    "grain": [f"tests/test_coarse.py::{COARSE}"],
    "manifest": ["tests/test_manifest.py"],
}
HEAVY = (
    "numpy",
    "torch",
    "skimage.data",
    "skimage.metrics",
    "PIL.Image",
    "pyvips",
    "safetensors.torch",
    "typer",
    "rich",
)
CPU_SECONDS = 60
_SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Invert: ast.UAdd,
    ast.USub: ast.UAdd,
}


def places(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes of code that runs, in order; not annotations and decorators."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from places(child)


def mutated(node: ast.AST) -> Iterator[ast.AST]:
    """The versions of a node that differ from it in one thing."""
    if isinstance(node, ast.Compare):
        for k, operator in enumerate(node.ops):
            compared = copy.deepcopy(node)
            compared.ops[k] = _SWAPS[type(operator)]()
            yield compared
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign, ast.UnaryOp)) and type(node.op) in _SWAPS:
        changed = copy.deepcopy(node)
        changed.op = _SWAPS[type(node.op)]()
        yield changed
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        value = node.value
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 1.5 + 0.1
        yield ast.copy_location(ast.Constant(other), node)


def mutants(tree: ast.Module) -> Iterator[tuple[ast.Module, str]]:
    """Every changed tree, with a line on what was changed."""
    for index, node in enumerate(places(tree)):
        for version in mutated(node):
            changed = copy.deepcopy(tree)
            target = list(places(changed))[index]
            vars(target).clear()
            target.__class__ = version.__class__
            vars(target).update(vars(version))
            yield changed, f"{node.lineno}: {ast.unparse(node)} -> {ast.unparse(version)}"  # type: ignore[attr-defined]


def survives(module: str, tree: ast.Module) -> bool:
    """Whether the tests pass with a changed module."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return status == 0
    code = 1
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        spec = importlib.util.find_spec(f"mdrn_cli.{module}")
        assert spec is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        exec(compile(tree, str(spec.origin), "exec"), vars(loaded))
        setattr(sys.modules["mdrn_cli"], module, loaded)
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *TESTS[module]]))
    finally:
        os._exit(code)


def main() -> None:
    """Print the surviving mutants of the modules asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="+", choices=sorted(TESTS))
    for name in HEAVY:
        importlib.import_module(name)
    os.chdir(ROOT)
    for module in parser.parse_args().modules:
        tree = ast.parse((ROOT / "mdrn_cli" / f"{module}.py").read_text())
        assert survives(module, tree), "its tests fail as it is"
        alive = total = 0
        for changed, what in mutants(tree):
            total += 1
            if survives(module, ast.fix_missing_locations(changed)):
                alive += 1
                print(f"{module}.py:{what}", flush=True)
        print(f"{module}: {total} mutants, {alive} survive", flush=True)


if __name__ == "__main__":
    main()

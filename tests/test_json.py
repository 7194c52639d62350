"""docs/json.md against what `--json` prints."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import record_json, run_mdrn, tiny_checkpoint
from PIL import Image
from scipy.ndimage import gaussian_filter

from mdrn_cli.checkpoint import save_checkpoint
from mdrn_cli.cli import speed
from mdrn_cli.speed import Speed, machine

PAGE = Path(__file__).parents[1] / "docs" / "json.md"
TYPES = {"string": str, "number": (int, float), "integer": int, "boolean": bool, "object": dict}


def documented(schema):
    """Types by key, of the table below the heading of a schema."""
    section = PAGE.read_text().split(f"\n## {schema}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \|", section, re.MULTILINE)
    return {key: kinds.split(" or ") for key, kinds in rows}


def types_of(known, value, name=""):
    """By key, the types among those known that values have; objects none of whose keys is known are not looked into."""
    if isinstance(value, list):
        return [pair for item in value for pair in types_of(known, item, name + "[]")] or [(name + "[]", None)]
    if name and name not in known:
        pytest.fail(f"{name} is not in docs/json.md")
    kinds = known.get(name, ["object"])
    of_kind = [kind for kind in kinds if (value is None if kind == "null" else is_a(value, kind))]
    assert of_kind, f"{name} is {value!r}, not {' or '.join(kinds)}"
    inside = name + "." if name else ""
    if isinstance(value, dict) and any(key.startswith(inside) for key in known):
        children = {re.match(r"\w+", key[len(inside) :])[0] for key in known if key.startswith(inside)}
        assert children <= value.keys(), f"of {name or 'the object'} every key is always there, as the page says"
        return [(name, of_kind[0]), *(pair for key in value for pair in types_of(known, value[key], inside + key))]
    return [(name, of_kind[0])]


def is_a(value, kind):
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def agree(*objects):
    """The page tells of the keys and types that there are, and of no others."""
    known = documented(objects[0]["schema"])
    met = {pair for each in objects for pair in types_of(known, each)}
    assert set(known) == {name for name, _ in met if name}
    return met


def printed(*arguments, code=0, **environment):
    done = run_mdrn(*arguments, "--json", env=environment)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def pictures(tmp_path, photo):
    """A photograph with noise of coarse grain, one with none, one that is too small, and one that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    grain = gaussian_filter(np.random.default_rng(0).normal(0, 1, (160, 160, 3)), (1.2, 1.2, 0))
    noisy = photo[:160, :160] + 12 * grain / grain.std()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / "grain.png")
    Image.fromarray(photo[:8, :8]).save(folder / "small.png")
    Image.new("RGB", (160, 160), "teal").save(folder / "even.png")
    (folder / "no.png").write_bytes(b"nothing")
    return folder


def test_denoise(pictures, tmp_path):
    report = tmp_path / "report.json"
    to = ("--output", tmp_path / "out", "--model", "mdrn-2b")
    *done, summary = printed("denoise", pictures, *to, "--report", report, code=3)
    *again, _ = printed("denoise", pictures, *to, "--dry-run")
    agree(*done, *again)
    agree(summary)
    assert {each["status"] for each in done + again} == {"done", "failed", "planned", "skipped"}
    assert json.loads(report.read_text()) == {"results": done, "summary": summary}


def test_estimate(pictures):
    assert ("sigma", "null") in agree(*printed("estimate", pictures, code=3))


def test_compare(pictures):
    others = [printed("compare", pictures / "grain.png", pictures / name)[0] for name in ("even.png", "grain.png")]
    small = printed("compare", pictures / "small.png", pictures / "small.png")
    assert ("results[].psnr", "null") in agree(*others, *small)


def test_bench(pictures, tmp_path):
    (pictures / "no.png").unlink()
    model = tmp_path / "net.safetensors"
    save_checkpoint(model, tiny_checkpoint("color", sigma=25))
    agree(*printed("bench", pictures, "--sigma", 25, "--model", model))


def test_speed():
    cases = [Speed(what, "mdrn", "torch", 64, 64, 0.2, 0.1, 0) for what in ("network", "file")]
    agree(speed.to_json(machine("cpu"), cases))


def test_doctor(tmp_path):
    known = {"MDRN_DATA": str(tmp_path), "MDRN_WEIGHTS_URL": "https://example.org"}
    agree(*printed("doctor"), *printed("doctor", **known))


def test_data():
    agree(*printed("data", "list"), *printed("data", "verify", "Set12", code=5))


def test_weights(tmp_path):
    lab = tmp_path / "lab.json"
    record = record_json(name="lab-gray-50", file="lab-gray-50.safetensors", urls=["https://example.org/lab"])
    lab.write_text(json.dumps({"schema": "mdrn.manifest/1", "checkpoints": [record]}))
    agree(*printed("weights", "list", "--manifest", lab))


def test_cache(tmp_path):
    kept = tmp_path / "home" / "files" / ("0" * 64)
    kept.mkdir(parents=True)
    (kept / "lab.safetensors").write_bytes(b"0")
    agree(*printed("cache", "list"), *printed("cache", "clear", "--all", "--dry-run"))

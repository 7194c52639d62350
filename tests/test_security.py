"""No pickle, no shell, and nothing written but what was asked for and the cache."""

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import run_mdrn, tiny_checkpoint

import mdrn_cli
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.errors import UsageError, WeightsError
from mdrn_cli.manifest import load_manifest
from mdrn_cli.weights import import_files

PACKAGE = Path(mdrn_cli.__file__).parent
PROJECT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Modules that run what a file says, start programs or deserialise objects.
FORBIDDEN_IMPORTS = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "code", "codeop"),
    *("subprocess", "pty", "popen2", "commands", "ctypes", "xmlrpc", "xml", "runpy"),
}
# glibc's mallopt has no other way in; `mdrn bench --speed` times fresh processes of this very command.
NEEDED = {("freedmemory.py", "ctypes"), ("speed.py", "subprocess")}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "importlib.import_module"),
    *("os.system", "os.popen", "os.execv", "os.execve", "os.execvp", "os.spawnv", "os.posix_spawn", "os.startfile"),
}
# Of torch, NumPy and pandas: each can load pickles.
LOADERS = {"load", "read_pickle", "loads"}
# The latter are Pillow's, and of a GPU's memory.
SAFE_LOADERS = {"json.loads", "tomllib.loads", "directory.load", "entries.load", "file.load", "tl.load"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call with what is called as the source has it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_unpickles_evaluates_or_starts_a_program(module):
    tree = ast.parse(module.read_text())
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in FORBIDDEN_IMPORTS or (module.name, name) in NEEDED, name
        if isinstance(node, ast.ImportFrom):
            assert not {f"{node.module}.{alias.name}" for alias in node.names} & FORBIDDEN_CALLS
    for name, call in calls(tree):
        last = name.split(".")[-1]
        assert name not in FORBIDDEN_CALLS, name
        assert "shell" not in {keyword.arg for keyword in call.keywords}, name
        if name in ("np.load", "numpy.load"):
            allowed = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert allowed.get("allow_pickle") == "False", name
        elif last in LOADERS:
            assert name in SAFE_LOADERS, name


class Evil:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def pickled_checkpoint(folder: Path, how: str) -> Path:
    """A checkpoint that would make the folder `trace`."""
    path, evil = folder / "evil.safetensors", Evil(folder / "trace")
    if how == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save({"weights": evil}, path, _use_new_zipfile_serialization=how == "torch")
    return path


@pytest.mark.parametrize("how", ["pickle", "torch", "torch-old"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, how):
    malicious = pickled_checkpoint(tmp_path, how)
    with pytest.raises(WeightsError, match="safetensors"):
        load_checkpoint(malicious)
    with pytest.raises(WeightsError, match="no known checkpoint"):
        import_files(malicious, load_manifest())
    pickled = malicious.rename(tmp_path / "evil.pt")
    with pytest.raises(UsageError, match="not safetensors"):
        import_files(pickled, load_manifest())
    with pytest.raises(WeightsError, match="safetensors"):
        load_checkpoint(pickled)
    assert not (tmp_path / "trace").exists()
    # It would have been: the trap works.
    torch.load(pickled, weights_only=False) if how.startswith("torch") else pickle.loads(pickled.read_bytes())
    assert (tmp_path / "trace").is_dir()


@pytest.mark.parametrize("size", [4_000_000_000, 400_000_000_000])
def test_a_checkpoint_that_claims_any_amount_of_memory_is_not_read(tmp_path, size):
    """A file of holes: shapes are looked at first, and what cannot even be mapped is an error like others."""
    about = {"format": "mdrn.checkpoint/1", "config": {"color": "gray", "blocks": 1, "features": 8}, "sigma": 5}
    header = {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in tiny_checkpoint().state}
    header["head.bias"] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": {"mdrn": json.dumps({**about, "record": {}})}, **header}).encode()
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    with pytest.raises(WeightsError, match=r"expected|not a readable"):
        load_checkpoint(path)


# Whatever the process opens for writing, makes, moves or removes is noted, threads and libraries in Python included.
AUDITED = """
import os, sys
noted = open(sys.argv.pop(1), "w")
NAMED = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
STARTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn")
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            noted.write(f"write {os.path.abspath(os.fsdecode(path))}\\n")
    elif event in NAMED:
        for path in arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
            if not isinstance(path, int):  # an open file, whose opening was noted
                noted.write(f"write {os.path.abspath(os.fsdecode(path))}\\n")
    elif event in STARTS:
        noted.write(f"start {event} {arguments}\\n")
    elif event in ("socket.connect", "socket.bind", "socket.sendto"):
        noted.write(f"network {arguments[1:]}\\n")
    elif event == "pickle.find_class":
        noted.write(f"pickle {arguments}\\n")
sys.addaudithook(hook)
from mdrn_cli.cli import main
code = main()
noted.flush()
os._exit(code)
"""


def audited(tmp_path: Path, *arguments: object) -> set[str]:
    """What a run of the command did to the world."""
    notes = tmp_path / "notes.txt"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", AUDITED, notes, *arguments]
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    return set(notes.read_text().splitlines())


def test_denoising_writes_its_outputs_and_nothing_else(tmp_path, photo_folder, tiny_weights):
    (photo_folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    inputs = {path: path.read_bytes() for path in photo_folder.rglob("*") if path.is_file()}
    out, report = tmp_path / "out", tmp_path / "report.json"
    arguments = ["-r", photo_folder, "-o", out, "--sigma", 50, "--report", report, "--json"]
    did = audited(tmp_path, "denoise", *arguments, "--model", tiny_weights("color"))
    assert {note.split(" ")[0] for note in did} == {"write"}
    written = {Path(note.removeprefix("write ")) for note in did}
    assert {path for path in written if not path.is_relative_to(out)} == {report, *partials(written, tmp_path)}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.png")} == {"0.png", "2.png", *deeper()}
    assert {path: path.read_bytes() for path in inputs} == inputs


def deeper() -> set[str]:
    return {"deeper/1.png", "deeper/3.png"}


def partials(written: set[Path], folder: Path) -> set[Path]:
    """The report while it is not whole."""
    pattern = re.compile(r"\.mdrn-[0-9a-f]+\.part")
    return {path for path in written if path.parent == folder and pattern.fullmatch(path.name)}


def test_looking_writes_nothing_and_fetching_only_into_the_cache(tmp_path, photo_folder):
    photo = photo_folder / "0.png"
    for command in (["estimate", photo], ["weights", "list"], ["denoise", photo, "--dry-run"], ["doctor"]):
        assert audited(tmp_path, *command) == set(), command


def test_a_manifest_cannot_name_a_file_outside_the_cache(tmp_path):
    from conftest import record_json

    for file in ("../evil.safetensors", "/etc/evil.safetensors", "a/b.safetensors", "..", "a.safetensors\n"):
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps({"schema": "mdrn.manifest/1", "checkpoints": [record_json(file=file)]}))
        with pytest.raises(WeightsError, match="file is not valid"):
            load_manifest(path)


def test_names_of_files_never_reach_a_shell(tmp_path, photo_folder, tiny_weights):
    name = f"$(touch {tmp_path.name}) `touch trace`; touch trace | touch trace .png"
    (photo_folder / "0.png").rename(photo_folder / name)
    done = run_mdrn("denoise", name, "--sigma", 50, "--model", tiny_weights("color"), cwd=photo_folder)
    assert done.returncode == 0, done.stderr
    assert not (photo_folder / "trace").exists()
    assert not (photo_folder / tmp_path.name).exists()


def test_locked_requirements_have_hashes_and_name_no_index():
    lines = (PROJECT / "requirements-dev.txt").read_text().splitlines()
    pinned = [line for line in lines if re.match(r"[a-z0-9][a-z0-9._-]*(\[.*\])?==", line)]
    assert len(pinned) > 30
    assert sum("--hash=sha256:" in line for line in lines) >= len(pinned)
    assert not [line for line in lines if "://" in line or line.startswith(("--index", "--extra", "--find", "-i "))]

"""`mdrn weights`: resolution order, mirrors, import, further manifests, and what is refused."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import record_json, run_mdrn, tiny_checkpoint
from server import Site, serving
from typer.testing import CliRunner

from mdrn_cli import weights
from mdrn_cli.cache import Cache
from mdrn_cli.checkpoint import save_checkpoint
from mdrn_cli.cli import app
from mdrn_cli.cli.boundary import run
from mdrn_cli.errors import UsageError, WeightsError
from mdrn_cli.manifest import Record, load_manifest, parse_record
from mdrn_cli.paths import sha256_of
from mdrn_cli.weights import BUNDLED, all_records, find_weights, import_files, item_of, locate, status


@pytest.fixture
def lab(tmp_path) -> tuple[Path, Record]:
    """A lab's own checkpoint: its file, and the record that a manifest beside it has."""
    folder = tmp_path / "lab"
    folder.mkdir()
    path = folder / "lab-gray-50.safetensors"
    checkpoint = tiny_checkpoint()
    save_checkpoint(path, checkpoint, torch.float32)
    item = record_json(
        name="lab-gray-50",
        file=path.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        config=checkpoint.config.to_dict(),
    )
    (folder / "manifest.json").write_text(json.dumps({"schema": "mdrn.manifest/1", "checkpoints": [item]}))
    return path, parse_record(item)


@pytest.fixture
def online(monkeypatch):
    monkeypatch.delenv("MDRN_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "*")


def test_resolution_takes_a_path_then_the_verified_cache_then_the_bundle():
    record = load_manifest()[0]
    assert find_weights("some/file.safetensors", "gray", 50).as_posix() == "some/file.safetensors"
    assert locate(record) == BUNDLED / record.file
    cached = Cache().path(item_of(record))
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"corrupt")
    assert locate(record) == BUNDLED / record.file, "a corrupt copy is passed over"
    shutil.copy(BUNDLED / record.file, cached)
    assert locate(record) == cached
    assert status(record).state == "cached"


def test_missing_and_corrupt_weights_are_told_apart_and_never_loaded(tmp_path, monkeypatch):
    record = load_manifest()[0]
    monkeypatch.setattr(weights, "BUNDLED", tmp_path / "bundle")
    with pytest.raises(WeightsError, match="not on this machine, and the network is off") as caught:
        locate(record)
    assert "mdrn weights import" in caught.value.hint
    (tmp_path / "bundle").mkdir()
    damaged = Path(shutil.copy(BUNDLED / record.file, tmp_path / "bundle"))
    with damaged.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2")
    with pytest.raises(WeightsError, match="corrupt"):
        locate(record)


@pytest.mark.usefixtures("online")
def test_record_urls_are_tried_after_the_mirror(lab, monkeypatch, tmp_path):
    path, record = lab
    with serving(Site({"/own.safetensors": path.read_bytes()})) as site:
        record = parse_record({**json.loads(json.dumps(record.__dict__)), "urls": [f"{site.base}/own.safetensors"]})
        monkeypatch.setenv("MDRN_WEIGHTS_URL", f"{site.base}/mirror/")
        assert locate(record).read_bytes() == path.read_bytes()
        assert [p for p, _ in site.requests] == [f"/mirror/{record.file}", "/own.safetensors"]
    shutil.rmtree(tmp_path / "home")
    for mirror in (str(path.parent), path.parent.as_uri()):
        monkeypatch.setenv("MDRN_WEIGHTS_URL", mirror)
        monkeypatch.setenv("MDRN_OFFLINE", "1")  # a folder needs no network
        assert locate(record).read_bytes() == path.read_bytes()
        shutil.rmtree(tmp_path / "home")


def test_a_mirror_that_is_no_address_is_one_error(lab):
    path, record = lab
    environment = {"MDRN_WEIGHTS_URL": "http://[x", "NO_PROXY": "*"}
    for offline, said in (("1", "network is off"), ("", "cannot fetch")):
        arguments = ["weights", "path", record.name, "--manifest", path.parent / "manifest.json"]
        done = run_mdrn(*arguments, env={**environment, "MDRN_OFFLINE": offline})
        assert (done.returncode, done.stderr.count("error:")) == (5, 1)
        assert said in done.stderr


@pytest.mark.parametrize("command", [["verify"], ["import", "."], ["rm", "--all"], ["list"]])
def test_a_manifest_that_cannot_be_had_is_one_line(tmp_path, command):
    """Nor is it asked for where the network is forbidden."""
    asked = ["weights", *command, "--manifest", "http://127.0.0.1:9/m.json"]
    for more, said in (([], "(the connection failed (ConnectionError))"), (["--offline"], "offline: ")):
        done = run_mdrn(*asked, *more, cwd=tmp_path, env={"MDRN_OFFLINE": "", "NO_PROXY": "*"})
        assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (5, True, 2), done.stderr


def test_verify_misses_a_bundled_file(tmp_path, monkeypatch):
    lost, *others = load_manifest()
    (tmp_path / "bundle").mkdir()
    for record in others:
        (tmp_path / "bundle" / record.file).symlink_to(BUNDLED / record.file)
    monkeypatch.setattr(weights, "BUNDLED", tmp_path / "bundle")
    done = CliRunner().invoke(app, ["weights", "verify"])
    assert isinstance(done.exception, WeightsError)
    assert done.exception.message == f"not intact: {lost.name}"


def test_import_recognises_content_not_names(lab, tmp_path):
    path, record = lab
    for name in ("whatever.safetensors", "own.safetensors.download", "OWN.SAF", "own"):
        renamed = tmp_path / "usb" / "deep" / name
        renamed.parent.mkdir(parents=True, exist_ok=True)
        for source in (tmp_path / "usb", renamed):
            shutil.copy(path, renamed)
            assert import_files(source, [record]) == [record]
            assert status(record).state == "cached"
            Cache().remove(item_of(record))
        renamed.unlink()
    shutil.copy(path, tmp_path / "usb" / "other.safetensors")
    renamed = tmp_path / "usb" / "other.safetensors"
    with pytest.raises(WeightsError, match="no known checkpoint"):
        import_files(renamed, load_manifest())
    pickled = tmp_path / "evil.pt"
    pickled.write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match="not safetensors"):
        import_files(pickled, [record])
    with pytest.raises(UsageError, match="no file"):
        import_files(tmp_path / "none", [record])


@pytest.fixture
def at_home(lab):
    """A manifest whose record says where its file lies; what commands take of it."""
    path, record = lab
    manifest = path.parent / "manifest.json"
    item = json.loads(manifest.read_text())["checkpoints"][0] | {"urls": [str(path)]}
    manifest.write_text(json.dumps({"schema": "mdrn.manifest/1", "checkpoints": [item]}))
    return path, record.name, ["--manifest", manifest]


def test_a_file_where_its_manifest_says_needs_no_cache(at_home):
    path, name, manifest = at_home
    done = run_mdrn("weights", "path", name, *manifest, env={"MDRN_HOME": "/dev/null/mdrn"})
    assert (done.returncode, done.stdout) == (0, f"{path}\n")


def test_a_damaged_file_where_its_manifest_says_is_told(at_home):
    path, name, manifest = at_home
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    done = run_mdrn("weights", "verify", *manifest)
    assert (done.returncode, f"{name}\tcorrupt\t" in done.stdout, str(path) in done.stdout) == (5, True, True)


def test_one_checkpoint_that_cannot_be_had_keeps_no_other(lab):
    path, record = lab
    (path.parent / "mirror").mkdir()
    items = [
        {**json.loads(json.dumps(record.__dict__)), "name": f"lab-{k}", "file": f"lab-{k}.safetensors"}
        for k in range(3)
    ]
    shutil.copy(path, path.parent / "mirror" / "lab-1.safetensors")
    manifest = path.parent / "manifest.json"
    manifest.write_text(json.dumps({"schema": "mdrn.manifest/1", "checkpoints": items}))
    environment = {"MDRN_WEIGHTS_URL": str(path.parent / "mirror")}
    done = run_mdrn("weights", "fetch", "--manifest", manifest, env=environment)
    assert (done.returncode, done.stderr.count("error:")) == (5, 2), done.stderr
    assert "1 fetched, 2 failed" in done.stderr
    assert "lab-0" in done.stderr
    assert "lab-2" in done.stderr
    assert run_mdrn("weights", "verify", "lab-1", "--manifest", manifest).returncode == 0


def test_a_checkpoint_is_not_replaced_by_the_model_made_of_it(lab):
    path, _ = lab
    before = path.read_bytes()
    done = run_mdrn("weights", "export", path, "-o", path, "--overwrite")
    assert (done.returncode, "the output would replace its own source" in done.stderr) == (2, True)
    assert path.read_bytes() == before


def test_a_family_stands_for_all_its_checkpoints(tmp_path):
    family = [record.name for record in load_manifest() if record.family == "mdrn-2b"]
    done = run_mdrn("weights", "verify", "mdrn-2b", family[0], "--json")
    (about,) = map(json.loads, done.stdout.splitlines())
    assert [each["name"] for each in about["checkpoints"]] == family
    assert "0 fetched, the rest was here" in run_mdrn("weights", "fetch", "mdrn-2b").stderr
    assert "0 bytes freed" in run_mdrn("weights", "rm", "mdrn-2b", env={"MDRN_HOME": str(tmp_path)}).stderr
    for command in ("path", "export"):
        done = run_mdrn("weights", command, "mdrn-2b")
        assert (done.returncode, done.stdout) == (5, "")
        assert "mdrn-2b is a family of checkpoints, and one is to be named" in done.stderr
        assert f"it has: {', '.join(family)}" in done.stderr


@pytest.mark.parametrize("address", ["https://example.org/lab.json", "https://me:secret@example.org/lab.json"])
def test_a_manifest_is_not_made_at_an_address(lab, tmp_path, address):
    path, _ = lab
    done = run_mdrn("weights", "pack", path, "--manifest", address, "--val", tmp_path, "--set", "x", cwd=tmp_path)
    assert (done.returncode, "https://example.org/lab.json is an address" in done.stderr) == (2, True)
    assert not (tmp_path / "https:").exists()


def test_a_name_with_a_zero_in_it_is_no_manifest():
    done = run_mdrn("weights", "list", "--manifest", "file:///a%00b")
    assert (done.returncode, "cannot read file:///a%00b" in done.stderr) == (5, True)


def test_a_labs_own_manifest_serves_denoise(lab, gray_photo, tmp_path):
    from PIL import Image

    path, record = lab
    Image.fromarray(gray_photo[:40, :40, 0]).save(tmp_path / "a.png")
    arguments = ["denoise", tmp_path / "a.png", "--sigma", 50, "--model", record.name]
    unknown = run_mdrn(*arguments)
    assert unknown.returncode == 5
    arguments += ["--manifest", path.parent / "manifest.json"]
    missing = run_mdrn(*arguments)
    assert missing.returncode == 5
    assert "not on this machine" in missing.stderr
    done = run_mdrn(*arguments, "--json", env={"MDRN_WEIGHTS_URL": str(path.parent)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["model"] == {
        "name": "lab-gray-50",
        "sha256": record.sha256,
        "trained_sigma": 50.0,
    }


@pytest.mark.usefixtures("online")
def test_manifests_come_over_http_too(lab):
    path, record = lab
    with serving(Site({"/m.json": (path.parent / "manifest.json").read_bytes()})) as site:
        assert record in all_records([f"{site.base}/m.json"])
        with pytest.raises(WeightsError, match="404"):
            all_records([f"{site.base}/none.json"])


def hostile(tmp_path, **changes):
    path = tmp_path / "hostile.json"
    item = record_json(**{"name": "x-gray-50"} | changes)
    path.write_text(json.dumps({"schema": "mdrn.manifest/1", "checkpoints": [item]}))
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../evil.safetensors"},
        {"file": "/etc/evil.safetensors"},
        {"file": "..\\evil.safetensors"},
        {"file": "weights.pt"},
        {"sha256": "../" + "0" * 61},
        {"bytes": -5},
        {"bytes": 10**30},
    ],
)
def test_a_hostile_manifest_is_refused_and_writes_nothing(tmp_path, change):
    manifest = hostile(tmp_path, **change)
    before = sorted(tmp_path.rglob("*"))
    done = run_mdrn("weights", "fetch", "--manifest", manifest)
    assert done.returncode == 5
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_manifest_says_is_told_as_text_and_is_json(tmp_path):
    manifest = hostile(tmp_path, licence="MIT\nforged: \x1b]0;title\x07", urls=["https://x/\x1b[2J"])
    for command in (["list"], ["fetch", "--dry-run"]):
        shown = run_mdrn("weights", *command, "--manifest", manifest).stdout
        assert "\x1b" not in shown
        assert "\nforged" not in shown
    manifest = hostile(tmp_path, training={"loss": float("nan")})
    done = run_mdrn("weights", "list", "--json", "--manifest", manifest)
    assert (done.returncode, "NaN is no number of JSON" in done.stderr) == (5, True)


def test_a_record_whose_file_is_called_as_a_bundled_one_is_not_told_to_be_damaged(tmp_path):
    manifest = hostile(tmp_path, name="lab-gray-25", file="mdrn-gray-25.safetensors")
    shown = run_mdrn("weights", "verify", "--manifest", manifest)
    assert shown.returncode == 0, shown.stderr
    assert "lab-gray-25\tmissing\t" in shown.stdout


def test_a_model_is_not_written_to_standard_output(tmp_path):
    done = run_mdrn("weights", "export", "mdrn-2b-gray-50", "-o", "-", cwd=tmp_path)
    assert (done.returncode, "stdout is for its name" in done.stderr) == (2, True)
    assert list(tmp_path.glob("-")) == []


def test_two_manifests_cannot_name_one_checkpoint(tmp_path):
    bundled = load_manifest()[0]
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"schema": "mdrn.manifest/1", "checkpoints": [record_json(name=bundled.name)]}))
    with pytest.raises(WeightsError, match="taken by another"):
        all_records([str(path)])


def test_list_verify_path_fetch_and_rm(lab, tmp_path):
    path, record = lab
    manifest = ["--manifest", path.parent / "manifest.json"]
    listed = json.loads(run_mdrn("weights", "list", *manifest, "--json").stdout)["checkpoints"]
    states = {entry["name"]: entry["state"] for entry in listed}
    assert states.pop("lab-gray-50") == "missing"
    assert set(states.values()) == {"bundled"}
    assert all(entry["licence"] for entry in listed)

    dry = run_mdrn("weights", "fetch", "--dry-run", *manifest, env={"MDRN_WEIGHTS_URL": str(path.parent)})
    assert dry.stdout.split("\t") == [record.file, str(record.bytes), f"{path.parent}/{record.file}\n"]
    assert not (tmp_path / "home").exists()
    assert run_mdrn("weights", "verify", record.name, *manifest).returncode == 5
    assert run_mdrn("weights", "verify", *manifest).returncode == 0

    assert run_mdrn("weights", "import", path.parent, *manifest).stdout == "lab-gray-50\n"
    located = Path(run_mdrn("weights", "path", record.name, *manifest).stdout.strip())
    assert sha256_of(located) == record.sha256
    assert run_mdrn("weights", "verify", record.name, *manifest).returncode == 0
    located.write_bytes(b"damaged")
    assert run_mdrn("weights", "verify", *manifest).returncode == 5
    assert run_mdrn("weights", "rm", *manifest).returncode == 2
    freed = run_mdrn("weights", "rm", record.name, *manifest)
    assert freed.returncode == 0
    assert "freed" in freed.stderr
    assert "bundled" not in freed.stderr
    kept = run_mdrn("weights", "rm", "mdrn-2b-gray-50")
    assert (kept.returncode, kept.stderr.endswith("; bundled checkpoints stay\n")) == (0, True)
    assert not located.exists()
    assert run_mdrn("weights", "path", "nonsense").returncode == 5


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("denoise {folder} --model {long}.safetensors", 5),
        ("bench {folder} --color gray --sigma 50 --model {long}.safetensors", 5),
        ("train --data {folder} --iterations 1 --output out --init {long}.safetensors", 5),
        ("train --data {folder} --iterations 1 --output {long}", 1),
        ("train --resume {long}", 1),
        ("weights import {long}", 2),
        ("weights pack {long} --val {folder} --set Set12", 5),
        ("weights export {long}.safetensors --format onnx -o out.onnx", 5),
    ],
)
def test_names_that_no_file_can_have_are_told(photo_folder, tmp_path, monkeypatch, capsys, command, code):
    monkeypatch.chdir(tmp_path)
    arguments = command.format(folder=photo_folder, long="n" * 300).split()
    monkeypatch.setattr(sys, "argv", ["mdrn", *arguments])
    assert run(app) == code
    told = capsys.readouterr().err
    assert "unexpected" not in told
    assert "nnn" in told

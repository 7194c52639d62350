"""`mdrn weights pack`: from a run to a bundled checkpoint and its record."""

import errno
import json
import math
import os
import platform
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from conftest import run_mdrn, set_of
from PIL import Image

from mdrn_cli import bench, datasets, files, provenance, release
from mdrn_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mdrn_cli.errors import DeviceError, MdrnError, UsageError, WeightsError
from mdrn_cli.manifest import load_manifest, save_manifest
from mdrn_cli.model import MDRN, MDRNConfig
from mdrn_cli.paths import sha256_of

RUN = {
    "iteration": 7,
    "batch_size": 2,
    "patch_size": 16,
    "sigma": 50.0,
    "seed": 3,
    "data": "photos/of/mine",
    "device": "cuda:1",
}


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Weights and manifest of their own."""
    save_manifest(tmp_path / "manifest.json", [])
    for module in (release, provenance):
        monkeypatch.setattr(module, "BUNDLED", tmp_path / "weights")
    monkeypatch.setattr(release, "manifest_path", lambda: tmp_path / "manifest.json")
    monkeypatch.setattr(release, "load_manifest", lambda path=tmp_path / "manifest.json": load_manifest(path))
    return tmp_path


@pytest.fixture
def pictures(tmp_path, photo):
    """A set of two small images."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(2):
        Image.fromarray(photo[100 * k : 100 * k + 32, :40]).save(folder / f"{k}.png")
    return folder


def trained(folder, scale=0.01, sigma=50.0, color="gray", **record):
    torch.manual_seed(0)
    config = MDRNConfig(color, 2)
    state = MDRN(config).state_dict()
    state["tail.weight"] *= scale
    save_checkpoint(folder / "best.safetensors", Checkpoint(config, sigma, state, RUN | record), torch.float32)
    return folder / "best.safetensors"


def test_a_run_becomes_a_checkpoint_and_a_record(room, pictures):
    seen = []
    record, checks = release.pack(trained(room), [str(pictures)], str(pictures), on_set=seen.append)
    stored = room / "weights" / "mdrn-2b-gray-50.safetensors"
    assert [path.name for path in (room / "weights").iterdir()] == [stored.name]
    assert load_checkpoint(stored).record == {"name": "mdrn-2b-gray-50"}
    assert (record.name, record.sha256, record.bytes) == (stored.stem, sha256_of(stored), stored.stat().st_size)
    assert abs(checks["float32"] - checks["float16"]) <= 0.002
    (kept,) = json.loads((room / "manifest.json").read_text())["checkpoints"]
    assert (kept["training"]["steps"], kept["training"]["pixels"], kept["training"]["data"]) == (7, 7 * 2 * 256, "mine")
    assert kept["metrics"] == {pictures.name: pytest.approx(checks["float16"], abs=1e-3)}
    assert len(next(iter(kept["spot_checks"].values()))) == 2
    assert len(seen) == 3


def test_large_images_are_measured_in_tiles(room, pictures, photo, monkeypatch):
    tiles = []

    def denoise(noisy, _function, tile, _ensemble):
        tiles.append(tile)
        return noisy

    monkeypatch.setattr(bench, "denoise_pixels", denoise)
    monkeypatch.setattr(bench, "half_of_memory", lambda: 0.0)
    monkeypatch.setattr(bench, "PUBLIC_PIXELS", 200 * 200)
    Image.fromarray(photo[:240, :180]).save(pictures / "large.png")
    release.pack(trained(room), [str(pictures)], str(pictures))
    assert tiles == [*[0, 0, 200] * 3, 0, 0], "validated twice, measured, and two images once more"


def test_a_second_run_replaces_the_first(room, pictures):
    for scale in (0.01, 0.02):
        record, _ = release.pack(trained(room, scale), [str(pictures)], str(pictures), overwrite=scale > 0.01)
    assert [kept.sha256 for kept in load_manifest(room / "manifest.json")] == [record.sha256]


@pytest.fixture
def bundled(room, pictures):
    """A checkpoint packed already, and what it is."""
    release.pack(trained(room), [str(pictures)], str(pictures))
    stored = room / "weights" / "mdrn-2b-gray-50.safetensors"
    return stored, stored.read_bytes()


def assert_kept(room, bundled):
    stored, content = bundled
    assert [path.name for path in (room / "weights").iterdir()] == [stored.name]
    assert stored.read_bytes() == content
    assert [record.sha256 for record in load_manifest(room / "manifest.json")] == [sha256_of(stored)]


def test_a_manifest_that_cannot_be_written_replaces_nothing(room, pictures, bundled, monkeypatch):
    """As of a full disk; the checkpoint would not be that of its record."""
    written = files._write

    def full(partial, path, data, like):
        written(partial, path, data, like)
        if path.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_write", full)
    with pytest.raises(MdrnError, match="No space left"):
        release.pack(trained(room, 0.02), [str(pictures)], str(pictures), overwrite=True)
    assert_kept(room, bundled)
    assert not list(room.glob(".mdrn-*"))


def test_packing_at_the_same_time_loses_no_record(room, pictures, monkeypatch):
    """All have measured before the first writes; each adds to what the others have written meanwhile."""
    ready, read = threading.Barrier(4), release._others

    def slow(name, manifest):
        others = read(name, manifest)
        time.sleep(0.1)
        return others

    locked = release.folder_locked

    def together(folder):
        ready.wait(30)
        return locked(folder)

    monkeypatch.setattr(release, "_others", slow)
    monkeypatch.setattr(release, "folder_locked", together)
    source = trained(room)
    names = [f"lab-{k}" for k in range(4)]

    def pack(name):
        release.pack(source, [str(pictures)], str(pictures), name=name, manifest=room / "lab.json")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pack, names))
    assert [record.name for record in load_manifest(room / "lab.json")] == names


def test_of_two_that_pack_one_name_at_the_same_time_one_is_refused(room, pictures, monkeypatch):
    """And what is recorded is of the file that is there."""
    ready, locked = threading.Barrier(2), release.folder_locked

    def together(folder):
        ready.wait(30)
        return locked(folder)

    monkeypatch.setattr(release, "folder_locked", together)
    sources = []
    for scale in (0.01, 0.3):
        (room / str(scale)).mkdir()
        sources.append(trained(room / str(scale), scale))

    def pack(source):
        return release.pack(source, [str(pictures)], str(pictures), name="lab", manifest=room / "lab.json")

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(pack, source) for source in sources]
    errors = [future.exception() for future in done]
    (refused,) = filter(None, errors)
    assert isinstance(refused, UsageError)
    (kept,) = load_manifest(room / "lab.json")
    assert kept == done[errors.index(None)].result()[0]
    assert sha256_of(room / "lab.safetensors") == kept.sha256
    assert not list(room.glob(".*"))


@pytest.mark.parametrize("name", ["auto", "mdrn", "mdrn-2b"])
def test_no_checkpoint_is_called_as_a_choice_of_them(room, pictures, name):
    with pytest.raises(UsageError, match="not a name for a checkpoint"):
        release.pack(trained(room), [str(pictures)], str(pictures), name=name, manifest=room / "lab.json")


def test_what_cannot_be_recorded_replaces_nothing(room, pictures, bundled, monkeypatch):
    monkeypatch.setattr(release, "LICENCE", 5)
    with pytest.raises(WeightsError, match="licence is not valid"):
        release.pack(trained(room, 0.02), [str(pictures)], str(pictures), overwrite=True)
    assert_kept(room, bundled)


def test_a_checkpoint_is_not_replaced_unless_that_is_asked_for(room, pictures, bundled):
    seen = []
    with pytest.raises(UsageError, match="this mdrn itself has a mdrn-2b-gray-50 already") as told:
        release.pack(trained(room, 0.02), [str(pictures)], str(pictures), on_set=seen.append)
    assert "a --manifest of your own" in told.value.hint
    assert seen == []
    assert_kept(room, bundled)


def test_sets_that_give_no_figure_are_refused_before_measuring(room, pictures, bundled, monkeypatch):
    noisy = replace(set_of(pictures, "RNI6"), clean=False)
    monkeypatch.setattr(datasets, "benchmark_sets", lambda: {"RNI6": noisy, "Set12": replace(noisy, name="Set12")})
    other = room / "Set12"
    other.mkdir()
    Image.new("L", (32, 32)).save(other / "a.png")
    shutil.copytree(other, room / "plain")
    seen = []
    for name, said in (
        ("RNI6", "no clean images"),
        (str(pictures), "no clean images"),
        (str(other), "not byte for byte"),
    ):
        with pytest.raises(UsageError, match=said):
            release.pack(trained(room, 0.02), [name], str(room / "plain"), room, on_set=seen.append, overwrite=True)
    with pytest.raises(UsageError, match="no benchmark set"):
        release.pack(trained(room, 0.02), [], str(room / "plain"), on_set=seen.append, overwrite=True)
    twice = [str(room / "plain"), str(shutil.copytree(room / "plain", room / "deeper" / "plain"))]
    with pytest.raises(UsageError, match="2 sets are named plain"):
        release.pack(trained(room, 0.02), twice, str(room / "plain"), on_set=seen.append, overwrite=True)
    assert seen == []
    assert_kept(room, bundled)


def test_a_network_for_color_is_not_measured_on_a_gray_set(room, pictures, monkeypatch):
    monkeypatch.setattr(datasets, "benchmark_sets", lambda: {"Set12": set_of(pictures, "Set12")})
    with pytest.raises(UsageError, match="Set12 is of gray images"):
        release.pack(trained(room, color="color"), [str(pictures)], str(pictures))


@pytest.mark.parametrize(
    ("sigma", "distilled", "said"), [(12.5, None, "12.5"), (50.0, "HADS", "HADS"), (50.0, "", "''")]
)
def test_what_has_no_name_is_refused_before_measuring(room, pictures, sigma, distilled, said):
    seen = []
    with pytest.raises(UsageError, match=said):
        release.pack(trained(room, sigma=sigma), [str(pictures)], str(pictures), None, distilled, seen.append)
    assert seen == []
    assert not (room / "weights").exists()


@pytest.mark.parametrize(
    ("about", "hardware", "version"),
    [
        ({"device": "cpu", "threads": 3, "processes": 1, "torch": "2.9"}, "cpu, 3 CPU threads", "2.9"),
        ({"device": "NVIDIA H100", "threads": 3, "processes": 4, "torch": "2.9"}, "4 x NVIDIA H100", "2.9"),
        (None, f"{os.cpu_count()} x {platform.machine()} CPU cores, device cuda:1", torch.__version__),
    ],
)
def test_the_machine_is_that_of_the_run(room, pictures, about, hardware, version):
    source = trained(room)
    if about:
        (room / "environment.json").write_text(json.dumps(about))
    record, _ = release.pack(source, [str(pictures)], str(pictures))
    assert (record.training["hardware"], record.training["torch"]) == (hardware, version)


def test_it_is_measured_on_the_device_asked_for(room, pictures, monkeypatch):
    monkeypatch.chdir(room)
    with pytest.raises(DeviceError, match="tpu"):
        release.pack(trained(room), [pictures.name], str(pictures), device="tpu")
    record, _ = release.pack(trained(room), [pictures.name], str(pictures))
    with pytest.raises(DeviceError, match="tpu"):
        release.measure_again(record, device="tpu")


def test_a_bundled_checkpoint_is_measured_again(room, pictures, monkeypatch):
    monkeypatch.chdir(room)
    record, _ = release.pack(trained(room), [pictures.name], str(pictures))
    save_manifest(room / "manifest.json", [replace(record, metrics={pictures.name: 1.0}, spot_checks={})])
    (stale,) = load_manifest(room / "manifest.json")
    assert release.measure_again(stale) == record
    assert load_manifest(room / "manifest.json") == (record,)


def test_what_float16_would_harm_is_not_bundled(room, pictures, monkeypatch):
    monkeypatch.setattr(release, "HALF_TOLERANCE_DB", -1.0)
    with pytest.raises(UsageError, match=r"float16 storage changes .* from \d+\.\d{4} to \d+\.\d{4} dB$") as told:
        release.pack(trained(room), [str(pictures)], str(pictures))
    assert "--model" in told.value.hint
    assert list((room / "weights").iterdir()) == []
    assert load_manifest(room / "manifest.json") == ()


def test_a_picture_that_is_restored_exactly_leaves_nothing_to_hold_float16_against(room, pictures, monkeypatch):
    measured = release.measure

    def exactly(*arguments, **options):
        first, *rest = (result := measured(*arguments, **options)).images
        return replace(result, images=(replace(first, psnr=math.inf), *rest))

    monkeypatch.setattr(release, "measure", exactly)
    with pytest.raises(UsageError, match=r"\.png of .* is restored exactly"):
        release.pack(trained(room), [str(pictures)], str(pictures))
    assert load_manifest(room / "manifest.json") == ()


def test_of_a_link_the_file_behind_it_is_replaced(room, pictures, tmp_path):
    behind = tmp_path / "elsewhere.safetensors"
    behind.write_bytes(b"old")
    target = room / "weights" / "mdrn-2b-gray-50.safetensors"
    target.parent.mkdir()
    target.symlink_to(behind)
    record, _ = release.pack(trained(room), [str(pictures)], str(pictures), overwrite=True)
    assert target.is_symlink()
    assert sha256_of(behind) == record.sha256


def test_a_network_of_no_family_is_refused(room, pictures):
    for config, problem in ((MDRNConfig("gray", 8, 32), "32 features"), (MDRNConfig("gray", 3), "3 blocks")):
        checkpoint = Checkpoint(config, 50.0, MDRN(config).state_dict())
        save_checkpoint(room / "tiny.safetensors", checkpoint, torch.float32)
        with pytest.raises(UsageError, match=f"no family has {problem}"):
            release.pack(room / "tiny.safetensors", [], str(pictures))


TAUGHT = {"mode": "hmds", "teacher": "/lab/run25/best.safetensors", "teacher_sigma": 25.0, "weight": 0.2}


def test_the_last_checkpoint_of_a_run_folder_is_taken_or_the_best(room, pictures):
    best = trained(room)
    assert release.checkpoint_of(room) == release.checkpoint_of(best) == best
    shutil.copy(best, room / "last.safetensors")
    assert release.checkpoint_of(room) == room / "last.safetensors"
    with pytest.raises(UsageError, match=r"no last\.safetensors or best\.safetensors"):
        release.pack(pictures, [str(pictures)], str(pictures))


def test_the_record_says_where_the_weights_come_from(room, pictures):
    command = ["mdrn", "distill", "--data", "my photos"]
    (room / "environment.json").write_text(json.dumps({"command": command}))
    init = str(release.BUNDLED / "mdrn-2b-gray-25.safetensors")
    told = {"final_weight": 0.0, "shared_noise": True, "soft_target": 0.5, "teacher_every": 3}
    trained(room, distillation=TAUGHT | told, init=init)
    record, _ = release.pack(room, [str(pictures)], str(pictures))
    assert (record.name, record.distilled) == ("mdrn-2b-hmds-gray-50", "hmds")
    assert record.training["command"] == "mdrn distill --data 'my photos'"
    assert record.training["init"] == "mdrn-2b-gray-25"
    assert record.training["distillation"] == TAUGHT | told | {"teacher": "run25/best.safetensors"}


def test_what_noise_a_network_is_for_is_in_its_name_and_record(room, pictures):
    record, _ = release.pack(trained(room, sigma=15.0, noise="camera"), [str(pictures)], str(pictures))
    assert (record.name, record.noise) == ("mdrn-2b-camera-gray-15", "camera")
    assert load_checkpoint(room / "weights" / record.file).noise == "camera", "its file says so, too"
    record, _ = release.pack(trained(room), [str(pictures)], str(pictures))
    assert (record.name, record.noise) == ("mdrn-2b-gray-50", "white")


def test_a_checkpoint_of_nobody_knows_where_is_recorded_all_the_same(room, pictures):
    record, _ = release.pack(trained(room, init="runs/w0/last.safetensors"), [str(pictures)], str(pictures))
    assert (record.training["init"], record.training["command"]) == ("w0/last.safetensors", None)
    assert record.training["distillation"] is None


@pytest.mark.parametrize(
    ("written", "asked", "said"),
    [
        ({"distillation": TAUGHT}, {"distilled": "hads"}, "distilled by hmds, not by hads"),
        ({"distillation": None}, {"distilled": "hads"}, "not distilled, not by hads"),
        ({}, {"name": "mdrn-gray-50"}, "this checkpoint is mdrn-2b-gray-50, not mdrn-gray-50"),
        ({"distillation": TAUGHT}, {"name": "mdrn-2b-gray-50"}, "this checkpoint is mdrn-2b-hmds-gray-50"),
    ],
)
def test_what_contradicts_the_run_is_refused_before_measuring(room, pictures, written, asked, said):
    with pytest.raises(UsageError, match=said):
        release.pack(trained(room, **written), [str(pictures)], str(pictures), on_set=pytest.fail, **asked)
    assert release.distillation_of(load_checkpoint(trained(room)), "hads") == "hads", "where the run does not say"


def test_a_manifest_of_ones_own_is_made_added_to_and_used(tmp_path, pictures):
    run, lab = tmp_path / "run", tmp_path / "lab" / "lab.json"
    run.mkdir()
    trained(run)
    arguments = ["weights", "pack", run, "--manifest", lab, "--val", pictures, "--set", pictures]
    for name, code in (("lab-a", 0), ("lab-b", 0), ("mdrn-2b-gray-50", 2), ("Lab", 2)):
        done = run_mdrn(*arguments, "--name", name)
        assert done.returncode == code, done.stderr
    nowhere = run_mdrn(*arguments[:3], "--manifest", lab / "lab.json", *arguments[5:], "--name", "lab-c")
    assert (nowhere.returncode, "cannot write" in nowhere.stderr) == (1, True), nowhere.stderr
    verified = run_mdrn("weights", "verify", "--manifest", lab, "lab-a")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.split("\t")[1] == "local"
    assert sorted(path.name for path in lab.parent.iterdir()) == [
        "lab-a.safetensors",
        "lab-b.safetensors",
        "lab.json",
    ]
    assert [record.name for record in load_manifest(lab)] == ["lab-a", "lab-b"]
    trained(run, seed=7)
    done = run_mdrn(*arguments, "--name", "lab-b")
    assert (done.returncode, "lab.json has a lab-b already" in done.stderr) == (2, True)
    assert run_mdrn(*arguments, "--name", "lab-b", "--overwrite").returncode == 0
    assert [record.name for record in load_manifest(lab)] == ["lab-a", "lab-b"]
    assert load_manifest(lab)[1].training["seed"] == 7
    Image.open(pictures / "0.png").convert("L").save(tmp_path / "gray.png")
    use = ["denoise", tmp_path / "gray.png", "--sigma", 50, "--manifest", "lab.json", "--model", "lab-a"]
    done = run_mdrn(*use, "-o", tmp_path / "a.png", cwd=lab.parent)
    assert done.returncode == 0, done.stderr
    moved = tmp_path / "usb.safetensors"
    (lab.parent / "lab-b.safetensors").rename(moved)
    assert run_mdrn("weights", "import", moved, "--manifest", lab).stdout == "lab-b\n"


@pytest.mark.parametrize("overwrite", [False, True])
def test_packing_replaces_neither_its_source_nor_what_is_no_checkpoint_of_the_manifest(tmp_path, pictures, overwrite):
    run, lab = tmp_path / "run", tmp_path / "lab.json"
    run.mkdir()
    source = trained(run).rename(tmp_path / "lab-gray.safetensors")
    before = source.read_bytes()
    how = {"sets": [str(pictures)], "validation": str(pictures), "manifest": lab, "overwrite": overwrite}
    with pytest.raises(UsageError, match="the output would replace its own source"):
        release.pack(source, name="lab-gray", on_set=pytest.fail, **how)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"of somebody else")
    if not overwrite:
        with pytest.raises(UsageError, match="exists already"):
            release.pack(source, name="other", on_set=pytest.fail, **how)
        assert other.read_bytes() == b"of somebody else"
    assert source.read_bytes() == before
    assert not lab.exists()


def test_what_is_packed_meanwhile_stays_in_the_manifest(tmp_path, pictures):
    run, lab = tmp_path / "run", tmp_path / "lab.json"
    run.mkdir()
    source = trained(run)
    how = {"sets": [str(pictures)], "validation": str(pictures), "manifest": lab}
    meanwhile = []

    def on_set(_name):
        if not meanwhile:
            meanwhile.append(True)
            release.pack(source, name="lab-b", **how)

    release.pack(source, name="lab-a", on_set=on_set, **how)
    assert [record.name for record in load_manifest(lab)] == ["lab-a", "lab-b"]


def test_a_record_has_every_session_of_its_run():
    first = {"device": "cpu", "threads": 2, "command": ["mdrn", "train", "--output", "a b"]}
    second = {"device": "H100", "command": ["mdrn", "train", "--resume", "a b"]}
    environment = {**second, "earlier": [first, second]}
    assert provenance._command(environment) == (
        "mdrn train --output 'a b' && mdrn train --resume 'a b' && mdrn train --resume 'a b'"
    )
    assert provenance._hardware({}, environment) == "cpu, 2 CPU threads, then H100"

"""What an unlucky environment costs: at most the file in progress, and that with a message.

`make stress` runs these at full size (docs/reliability.md has the figures)."""

import errno
import os
import random
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import start
from conftest import record_json, tiny_checkpoint, tiny_config
from PIL import Image
from safetensors.torch import load_file

from mdrn_cli import batch
from mdrn_cli.batch import run_jobs
from mdrn_cli.cache import Cache
from mdrn_cli.checkpoint import load_checkpoint, save_checkpoint
from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.files import LEFTOVER_AGE, remove_leftovers, write_atomically
from mdrn_cli.image import read_picture
from mdrn_cli.jobs import plan_jobs
from mdrn_cli.manifest import parse_record, save_manifest
from mdrn_cli.naming import Naming
from mdrn_cli.outcome import DONE, FAILED, SKIPPED
from mdrn_cli.paths import sha256_of
from mdrn_cli.restore import DenoiseOptions
from mdrn_cli.runlog import MetricsFile
from mdrn_cli.runstate import saved_config
from mdrn_cli.training import run_train
from mdrn_cli.weights import item_of


@pytest.fixture
def logs(tmp_path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
def pictures(tmp_path, photo):
    """Makes a nested folder of small pictures of several formats."""

    def make(count: int) -> Path:
        folder = tmp_path / "pictures"
        for k in range(count):
            path = folder / f"{k % 3}" / f"{k:04d}.{('png', 'jpg', 'tif', 'bmp', 'webp')[k % 5]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            top = k % 100  # where the photograph is colorful: what is nearly gray is for networks for gray
            Image.fromarray(photo[top : top + 40 + k % 7, 400:450]).save(path)
        return folder

    return make


def visible(root: Path) -> dict[str, bytes]:
    """Every file below a folder that is not hidden."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob(".mdrn-*.part"))


def age(partial: Path) -> None:
    os.utime(partial, (time.time() - LEFTOVER_AGE - 1,) * 2)


def test_a_folder_run_killed_again_and_again_ends_as_if_undisturbed(tmp_path, pictures, tiny_weights, logs, full_size):
    """SIGKILL at random moments; each run goes on where the last was ended."""
    kills, rng = 100 if full_size else 3, random.Random(0)
    folder, out = pictures(60 if full_size else 24), tmp_path / "out"
    how = ["denoise", "-r", folder, "--sigma", 50, "--model", tiny_weights("color"), "-o"]
    assert start(*how, tmp_path / "whole", logs=logs).wait().returncode == 0
    expected = visible(tmp_path / "whole")
    killed = found = trees = 0
    while killed < kills:
        done = len(visible(out))
        run = start(*how, out, logs=logs)
        aim = min(done + rng.randrange(12), len(expected))
        while run.process.is_alive() and sum(1 for _ in out.rglob("[!.]*.*")) < aim:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        killed += run.kill()
        assert visible(out).items() <= expected.items(), "what can be seen is whole"
        if len(visible(out)) == len(expected) and killed < kills:
            found += len(leftovers(out))
            shutil.rmtree(out)
            trees += 1
    assert start(*how, out, logs=logs).wait().returncode == 0
    assert visible(out) == expected
    found += len(leftovers(out))
    print(f"\n{killed} kills over {trees + 1} trees of {len(expected)} images left {found} hidden partial files")


def test_what_a_kill_leaves_is_never_taken_for_an_image_and_goes_with_a_later_run(tmp_path, pictures, tiny_weights):
    folder, out = pictures(3), tmp_path / "out"
    options = DenoiseOptions(50.0, str(tiny_weights("color")))
    naming = Naming(out, recursive=True)
    (out / "0").mkdir(parents=True)
    old, young = out / "0" / ".mdrn-0123456789abcdef.part", out / "0" / ".mdrn-fedcba9876543210.part"
    mine = out / "0" / ".mine.part"
    for path in (old, young, mine):
        path.write_bytes((folder / "0" / "0000.png").read_bytes()[:99])
    age(old)
    age(mine)
    assert [o.status for o in run_jobs(plan_jobs([folder], naming), options)] == [DONE] * 3
    assert not old.exists()
    assert young.exists(), "another process may be writing it"
    assert mine.exists()
    assert all(job.skip for job in plan_jobs([folder], naming))
    assert {job.source.suffix for job in plan_jobs([out], Naming(tmp_path / "again", recursive=True))} <= {
        ".png", ".jpg", ".tif",
    }  # fmt: skip


def test_partial_files_of_two_writers_never_meet(tmp_path, monkeypatch):
    """Process numbers repeat among containers that share a folder."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    names = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (names.append(self.name), replace(self, target))[1])
    for data in (b"one", b"two"):
        write_atomically(tmp_path / "x.png", data)
    assert len(set(names)) == 2
    assert (tmp_path / "x.png").read_bytes() == b"two"
    long = tmp_path / ("ж" * 125 + ".png")  # 254 bytes, of 255 that a name may have
    write_atomically(long, b"three")
    assert long.read_bytes() == b"three"


def test_files_are_replaced_where_there_are_no_owners(tmp_path, monkeypatch):
    """As on Windows, whose Python has had fchmod since 3.13, but neither fchown nor geteuid."""
    for name in ("fchown", "geteuid", "getegid"):
        monkeypatch.delattr(os, name)
    for data in (b"one", b"two"):
        write_atomically(tmp_path / "x.png", data)
    assert (tmp_path / "x.png").read_bytes() == b"two"


def test_a_training_run_killed_again_and_again_ends_with_the_same_weights(tmp_path, photo_folder, logs, full_size):
    kills, rng = 30 if full_size else 2, random.Random(1)
    options = ["--data", photo_folder, "--blocks", 1, "--iterations", 60, "--batch-size", 1, "--patch-size", 16]
    options += ["--precision", "float32", "--save-every", "0s", "--device", "cpu"]
    began = time.monotonic()
    assert start("train", *options, "-o", tmp_path / "whole", logs=logs).wait().returncode == 0
    length, expected = time.monotonic() - began, load_file(tmp_path / "whole" / "last.safetensors")
    killed = finished = 0
    while killed < kills or not finished:
        run = tmp_path / f"run{finished}"
        begun = (run / "state.safetensors").is_file()
        how = ["train", "--resume"] if begun else ["train", *options, "--overwrite"]
        command = start(*how, "-o", run, logs=logs)
        command.process.join(rng.uniform(0, length) if killed < kills else 600)
        if command.kill():
            killed += 1
            if begun:  # what is there is whole at any moment
                assert saved_config(run)["iterations"] == 60
                load_checkpoint(run / "last.safetensors")
            continue
        assert command.wait().returncode == 0, command.stderr.read_text()
        weights = load_file(run / "last.safetensors")
        assert all(weights[name].equal(expected[name]) for name in expected)
        reported = [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()]
        assert {"20", "40", "60"} <= {*reported}
        assert len(reported) == len(set(reported))
        finished += 1
    print(f"\n{killed} kills over {finished} runs of {length:.1f} s, weights equal to the undisturbed run's")


@pytest.fixture
def disk(tmp_path):
    """Mounts a small disk, and mounts it again with other options."""
    folder = tmp_path / "disk"
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")

    def mount(options: str) -> Path:
        again = folder.is_mount()
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", ("remount," if again else "") + options, "tmpfs", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no disk can be mounted here, though this is root")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_costs_what_does_not_fit_and_the_rerun_does_the_rest(tmp_path, pictures, tiny_weights, logs, disk):
    folder, out = pictures(30), disk("size=64k") / "out"
    how = ["denoise", "-r", folder, "--sigma", 50, "--model", tiny_weights("color"), "-o"]
    assert start(*how, tmp_path / "whole", logs=logs).wait().returncode == 0
    expected = visible(tmp_path / "whole")
    full = start(*how, out, logs=logs).wait()
    assert full.returncode == 3
    done = visible(out)
    assert 0 < len(done) < 30
    assert done.items() <= expected.items()
    assert leftovers(out) == []
    told, summary, again = full.stderr.partition(f"{len(done)} done, 0 skipped, {30 - len(done)} failed\n")
    assert told.count("No space left on device") == told.count("error: cannot write") == 30 - len(done)
    assert summary
    assert again.count("No space left on device") == min(30 - len(done), 20)
    assert "hint: free some space" in full.stderr
    assert "Traceback" not in full.stderr
    disk("size=10m")
    assert start(*how, out, logs=logs).wait().returncode == 0
    assert visible(out) == expected


def test_a_full_disk_ends_a_training_run_that_can_be_resumed(tmp_path, photo_folder, logs, disk):
    options = ["--data", photo_folder, "--blocks", 1, "--iterations", 6, "--batch-size", 1, "--patch-size", 16]
    options += ["--precision", "float32", "--save-every", "0s", "--device", "cpu", "--output"]
    assert start("train", *options, tmp_path / "whole", logs=logs).wait().returncode == 0
    state = (tmp_path / "whole" / "state.safetensors").stat().st_size
    run = (
        disk(f"size={int(state * 2.2)}") / "run"
    )  # the first state and weights fit, a second state beside them does not
    full = start("train", *options, run, logs=logs).wait()
    assert full.returncode == 1, full.stderr
    assert full.stderr.count("error: cannot write") == 1
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    disk(f"size={state * 10}")
    assert start("train", "--resume", "-o", run, logs=logs).wait().returncode == 0
    weights, expected = load_file(run / "last.safetensors"), load_file(tmp_path / "whole" / "last.safetensors")
    assert all(weights[name].equal(expected[name]) for name in expected)


def test_an_output_that_cannot_be_written_to(pictures, tiny_weights, logs, disk):
    folder, out = pictures(3), disk("size=1m") / "out"
    (out / "0").mkdir(parents=True)
    (out / "0" / "kept.png").write_text("kept")
    disk("ro")
    how = ["--sigma", 50, "--model", tiny_weights("color"), "-o"]
    done = start("denoise", "-r", folder, *how, out, logs=logs).wait()
    assert done.returncode == 1
    assert done.stderr.count("error: cannot write") == done.stderr.count("Read-only file system") == 3
    assert "hint: choose a folder that can be written to" in done.stderr
    assert "Traceback" not in done.stderr
    assert visible(out) == {"0/kept.png": b"kept"}
    train = ["train", "--data", folder, "--iterations", 1, "--blocks", 1, "--patch-size", 16, "-o", out / "run"]
    trained = start(*train, logs=logs).wait()
    assert (trained.returncode, trained.stderr.count("error: cannot write")) == (1, 1), trained.stderr


def run_with_faults(jobs, options, fault):
    """The outcomes of a run in which `fault` happens once the first result is on disk."""
    outcomes = []
    for outcome in run_jobs(jobs, options):
        if not outcomes:
            fault()
        outcomes.append(outcome)
    return outcomes


def remove(folder):
    """A folder into which another thread may be writing."""
    for _ in range(100):
        with suppress(OSError):
            return shutil.rmtree(folder)
    raise AssertionError(f"{folder} cannot be removed")


def test_an_output_folder_removed_in_the_middle_is_made_again(tmp_path, pictures, tiny_weights):
    folder, out = pictures(20), tmp_path / "out"
    options, naming = DenoiseOptions(50.0, str(tiny_weights("color"))), Naming(out, recursive=True)
    outcomes = run_with_faults(plan_jobs([folder], naming), options, lambda: remove(out))
    assert {o.status for o in outcomes} <= {DONE, FAILED}
    assert all(o.error.message.startswith("cannot write") for o in outcomes if o.error)
    list(run_jobs(plan_jobs([folder], naming), options))
    after = visible(out)
    assert len(after) == 20
    list(run_jobs(plan_jobs([folder], Naming(tmp_path / "whole", recursive=True)), options))
    assert after == visible(tmp_path / "whole")


def test_inputs_that_go_or_change_in_the_middle_cost_themselves_alone(tmp_path, pictures, tiny_weights):
    folder, out = pictures(20), tmp_path / "out"
    options = DenoiseOptions(50.0, str(tiny_weights("color")))
    jobs = plan_jobs([folder], Naming(out, recursive=True))
    list(run_jobs(plan_jobs([folder], Naming(tmp_path / "whole", recursive=True)), options))
    gone, cut, folded, other = (jobs[k].source for k in (8, 10, 12, 14))
    given = {path.relative_to(folder).as_posix() for path in (gone, cut, folded)}

    def fault():
        gone.unlink()
        os.truncate(cut, 60)
        folded.unlink()
        folded.mkdir()
        other.write_bytes(jobs[0].source.read_bytes())

    outcomes = run_with_faults(jobs, options, fault)
    assert {o.job.source for o in outcomes if o.status == FAILED} == {gone, cut, folded}
    assert all(o.error.exit_code == 4 and str(o.job.source) in o.error.message for o in outcomes if o.error)
    same = visible(tmp_path / "whole").items() & visible(out).items()
    assert {name for name, _ in same} == visible(tmp_path / "whole").keys() - given - {
        other.relative_to(folder).as_posix()
    }
    assert len(visible(out)) == 17


@pytest.mark.parametrize("change", ["edited", "gone"])
def test_in_place_never_undoes_what_happened_to_the_file_meanwhile(tmp_path, photo, tiny_weights, monkeypatch, change):
    path = tmp_path / "a.png"
    Image.fromarray(photo[:40, :50]).save(path)
    encode = batch.encode_picture

    def meddling(*arguments):
        if change == "gone":
            path.unlink()
        else:
            Image.fromarray(photo[100:140, :50]).save(path)
        return encode(*arguments)

    monkeypatch.setattr(batch, "encode_picture", meddling)
    (outcome,) = run_jobs(plan_jobs([path], Naming(in_place=True)), DenoiseOptions(50.0, str(tiny_weights("color"))))
    assert outcome.status == FAILED
    assert "was changed while" in outcome.error.message
    if change == "gone":
        assert not path.exists()
    else:
        assert np.array_equal(np.asarray(Image.open(path)), photo[100:140, :50])


@pytest.mark.parametrize("existing", ["error", "skip", "overwrite"])
@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_result_that_appears_in_the_middle(tmp_path, pictures, tiny_weights, monkeypatch, existing, moment):
    """Made by another process after the plan: nothing is overwritten unless asked, and no work is done twice."""
    folder = pictures(1)
    options = DenoiseOptions(50.0, str(tiny_weights("color")))
    source = folder / "0" / "0000.png"
    jobs = plan_jobs([source], Naming(tmp_path / "x.png", existing=existing))
    if moment == "before":
        (tmp_path / "x.png").write_text("precious")
    else:
        encode = batch.encode_picture
        appear = lambda: (tmp_path / "x.png").write_text("precious")  # noqa: E731
        monkeypatch.setattr(batch, "encode_picture", lambda *a: (appear(), encode(*a))[1])
    tiles = []
    (outcome,) = run_jobs(jobs, options, on_tile=lambda *progress: tiles.append(progress))
    assert outcome.status == {"error": FAILED, "skip": SKIPPED, "overwrite": DONE}[existing]
    assert bool(tiles) == (moment == "while" or existing == "overwrite")
    assert ((tmp_path / "x.png").read_bytes() == b"precious") == (existing != "overwrite")
    if existing == "error":
        assert isinstance(outcome.error, UsageError)


@pytest.mark.parametrize("source_left", [True, False])
def test_a_cache_deleted_in_the_middle(tmp_path, pictures, source_left):
    """Networks in use are in memory; one needed later is brought again, or costs its pictures with a message."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    records = []
    for color in ("gray", "color"):
        file = mirror / f"tiny-{color}.safetensors"
        save_checkpoint(file, tiny_checkpoint(color), torch.float32)
        about = {"name": file.stem, "file": file.name, "sha256": sha256_of(file), "bytes": file.stat().st_size}
        records.append(parse_record(record_json(**about, color=color, family="mdrn", urls=[file.as_uri()], sigma=80.0)))
        Cache().fetch(item_of(records[-1]))
    save_manifest(tmp_path / "m.json", records)
    folder = pictures(6)
    for path in sorted(folder.rglob("*.png")):
        Image.open(path).convert("L").save(path)
    options = DenoiseOptions(80.0, "mdrn", manifests=(str(tmp_path / "m.json"),))
    jobs = plan_jobs([folder], Naming(tmp_path / "out", recursive=True))
    jobs.sort(key=lambda job: job.source.suffix == ".png")  # the gray ones last

    def fault():
        shutil.rmtree(Cache().root)
        if not source_left:
            shutil.rmtree(mirror)

    outcomes = run_with_faults(jobs, options, fault)
    gray = [o for o in outcomes if o.job.source.suffix == ".png"]
    assert {o.status for o in outcomes if o not in gray} == {DONE}
    assert {o.status for o in gray} == {DONE if source_left else FAILED}
    assert all(o.error.exit_code == 5 for o in gray if o.error)


def test_a_failure_holds_no_pixels(pictures, tmp_path, tiny_weights):
    """Thousands of large pictures that cannot be written must not stay in memory by way of their tracebacks."""
    folder = pictures(6)
    (tmp_path / "out").mkdir()
    for k in range(3):
        (tmp_path / "out" / str(k)).write_text("where a folder should be")
    (folder / "0" / "0000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    jobs = plan_jobs([folder], Naming(tmp_path / "out", recursive=True))
    for outcome in run_jobs(jobs, DenoiseOptions(50.0, str(tiny_weights("color")))):
        assert outcome.status == FAILED
        error = outcome.error
        while error:
            step = error.__traceback__
            while step:
                assert "run_jobs" in step.tb_frame.f_code.co_name or not step.tb_frame.f_locals, step.tb_frame
                step = step.tb_next
            error = error.__cause__ or error.__context__


def test_no_image_is_mapped_into_memory(tmp_path, monkeypatch):
    """A mapped file that another program cuts short ends the process by SIGBUS."""
    import mmap

    def refuse(*_arguments, **_keywords):
        raise AssertionError("mapped")

    monkeypatch.setattr(mmap, "mmap", refuse)
    for suffix in ("bmp", "png", "tif"):
        Image.new("L", (64, 64), 9).save(tmp_path / f"a.{suffix}")
        assert read_picture(tmp_path / f"a.{suffix}").channels.mean() == 9


def test_a_row_of_metrics_cut_by_a_full_disk_is_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("iteration,loss\r\n20,0.5\r\n40,0.4\r\n4")
    MetricsFile(path, ("iteration", "loss"), 40)
    assert path.read_text().splitlines() == ["iteration,loss", "20,0.5", "40,0.4"]


@pytest.mark.parametrize(
    ("metrics", "kept"),
    [
        (b"iteration,loss,note\r\n20,0.5,good\r\n40,0.4,better\r\n", ["20,0.5", "40,0.4"]),
        (b"iteration,loss\r\n20,0.5,and more\r\n40,0.4\r\n", ["20,0.5", "40,0.4"]),
        (b"loss,iteration\r\n0.5,20\r\n", ["20,0.5"]),
        (b"iteration,loss\r\n20,0.5\r\n30,0.\xff\r\n\xb2,0.4\r\n40,0.4\r\n", ["20,0.5", "40,0.4"]),
        (b'iteration,loss\r\n20,0.5\r\n40,"' + bytes(200_000), ["20,0.5"]),
        (b"\xff\xfe\x00", []),
        (b"", []),
    ],
    ids=["column", "field", "order", "bytes", "quote", "garbage", "empty"],
)
def test_metrics_that_others_have_edited_or_damaged_keep_no_run_from_going_on(tmp_path, photo_folder, metrics, kept):
    path = tmp_path / "metrics.csv"
    path.write_bytes(metrics)
    MetricsFile(path, ("iteration", "loss"), 40)
    assert path.read_text().splitlines() == ["iteration,loss", *kept]
    run, config = tmp_path / "run", tiny_config(photo_folder, iterations=1)
    run_train(config, run, False, lambda _progress: None)
    (run / "metrics.csv").write_bytes(metrics)
    assert run_train(config.extended(2, None), run, True, lambda _progress: None)[0].iteration == 2


def test_overwriting_a_run_by_a_request_that_makes_no_sense_leaves_it(tmp_path, photo_folder, logs):
    run = tmp_path / "run"
    run_train(tiny_config(photo_folder, iterations=1), run, False, lambda _progress: None)
    before = visible(run)
    for wrong in (["--iterations", 1], ["--data", tmp_path / "none", "--iterations", 1], ["--data", photo_folder]):
        assert start("train", *wrong, "--overwrite", "-o", run, logs=logs).wait().returncode != 0
    assert visible(run) == before


def test_a_partial_file_is_left_alone_for_ten_minutes(tmp_path):
    """It may be that of a run on another machine, whose writing takes its time."""
    young, old = tmp_path / ".mdrn-0.part", tmp_path / ".mdrn-1.part"
    for partial, minutes in ((young, 9), (old, 11)):
        partial.touch()
        os.utime(partial, (time.time() - 60 * minutes,) * 2)
    remove_leftovers(tmp_path)
    assert leftovers(tmp_path) == [young]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        *((code, "choose a folder that can be written to") for code in (errno.EACCES, errno.EPERM, errno.EROFS)),
        *((code, "free some space, then run it again") for code in (errno.ENOSPC, errno.EDQUOT)),
        (errno.EIO, "look at the folder, then run it again"),
    ],
    ids=errno.errorcode.get,
)
def test_what_may_help_against_a_failure_to_write_is_told(tmp_path, monkeypatch, code, hint):
    def fail(_descriptor):
        raise OSError(code, os.strerror(code))

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MdrnError, match=re.escape(f"a.png ({os.strerror(code)})")) as caught:
        write_atomically(tmp_path / "a.png", b"new")
    assert caught.value.hint == hint
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_leftover_that_cannot_be_removed_does_not_keep_the_others(tmp_path, monkeypatch):
    for k in range(3):
        (tmp_path / f".mdrn-{k}.part").touch()
        age(tmp_path / f".mdrn-{k}.part")
    unlink, tried = Path.unlink, []

    def refused_once(path):
        tried.append(path)
        if len(tried) == 1:
            raise PermissionError(1, "Operation not permitted")
        unlink(path)

    monkeypatch.setattr(Path, "unlink", refused_once)
    remove_leftovers(tmp_path)
    assert leftovers(tmp_path) == tried[:1]
    assert len(tried) == 3


def test_a_folder_without_leftovers_or_none_at_all(tmp_path):
    remove_leftovers(tmp_path / "none")
    remove_leftovers(tmp_path)
    with pytest.raises(MdrnError, match="cannot write") as caught:
        write_atomically(tmp_path / "none" / "x", b"")
    assert caught.value.hint


@pytest.mark.parametrize("change", ["cut", "edited", "gone"])
def test_a_file_without_noise_is_not_copied_as_what_it_has_become_meanwhile(tmp_path, photo, monkeypatch, change):
    path, out = tmp_path / "a.png", tmp_path / "out"
    Image.new("RGB", (64, 64), (90, 90, 90)).save(path)
    restore = batch.Restorer.__call__

    def meddling(*arguments):
        result = restore(*arguments)
        if change == "gone":
            path.unlink()
        elif change == "cut":
            os.truncate(path, 60)
        else:
            Image.fromarray(photo[:40, :50]).save(path)
        return result

    monkeypatch.setattr(batch.Restorer, "__call__", meddling)
    (outcome,) = run_jobs(plan_jobs([path], Naming(out, folder=True)), DenoiseOptions())
    assert (outcome.status, outcome.error.exit_code) == (FAILED, 4)
    assert str(path) in outcome.error.message
    assert not visible(out)

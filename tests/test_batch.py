"""Folders and many files: decided first, done without stopping, nothing lost."""

import gc
import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
import weakref
import zlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from conftest import run_mdrn
from PIL import Image

from mdrn_cli import batch
from mdrn_cli.__main__ import main
from mdrn_cli.batch import run_jobs
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.cli import app
from mdrn_cli.cli.boundary import run
from mdrn_cli.cli.outcomes import show, show_summary, summarized, warn_of_others
from mdrn_cli.errors import DeviceError, InputError, MdrnError, UsageError
from mdrn_cli.files import write_atomically
from mdrn_cli.jobs import plan_jobs
from mdrn_cli.naming import Job, Naming
from mdrn_cli.outcome import DONE, Outcome, foresee
from mdrn_cli.restore import DenoiseOptions, Facts, Restorer


@pytest.fixture
def tree(tmp_path, photo) -> Path:
    """Six images in nested folders, something else beside them."""
    root = tmp_path / "photos"
    for k, name in enumerate(("a.png", "b.jpg", "sub/a.png", "sub/deep/c.webp", "sub/deep/d.tif", ".hidden/e.png")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[k * 32 : k * 32 + 24, :40]).save(path)
    (root / "notes.txt").write_text("hello")
    return root


def names(jobs, root):
    return [(j.source.relative_to(root).as_posix(), j.target.relative_to(root).as_posix()) for j in jobs]


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_results_lie_beside_their_inputs_and_are_not_inputs_of_the_next_run(tree):
    jobs = plan_jobs([tree], Naming())
    assert names(jobs, tree) == [("a.png", "a_mdrn.png"), ("b.jpg", "b_mdrn.jpg")]
    for job in jobs:
        job.target.write_bytes(job.source.read_bytes())
    again = plan_jobs([tree], Naming())
    assert names(again, tree) == names(jobs, tree)
    assert all(job.skip for job in again)
    assert not any(job.skip for job in plan_jobs([tree], Naming(existing="overwrite")))


def test_the_tree_is_mirrored_under_the_output_folder(tree, tmp_path):
    jobs = plan_jobs([tree], Naming(tmp_path / "out", recursive=True))
    assert [job.target.relative_to(tmp_path / "out").as_posix() for job in jobs] == [
        "a.png",
        "b.jpg",
        "sub/a.png",
        "sub/deep/c.webp",
        "sub/deep/d.tif",
    ]
    assert not (tmp_path / "out").exists(), "a plan does nothing"


def test_an_output_folder_inside_the_input_is_not_read(tree):
    out = tree / "out"
    out.mkdir()
    (out / "a.png").write_bytes((tree / "a.png").read_bytes())
    assert len(plan_jobs([tree], Naming(out, recursive=True))) == 5


def test_several_files_go_into_a_folder_and_one_to_a_name(tree, tmp_path):
    several = plan_jobs([tree / "a.png", tree / "b.jpg"], Naming(tmp_path / "out", suffix=".tif"))
    assert [job.target.name for job in several] == ["a.tif", "b.tif"]
    (one,) = plan_jobs([tree / "a.png"], Naming(tmp_path / "x.jpg"))
    assert one.target == tmp_path / "x.jpg"
    (tmp_path / "there").mkdir()
    (into,) = plan_jobs([tree / "a.png"], Naming(tmp_path / "there"))
    assert into.target == tmp_path / "there" / "a.png"
    (named,) = plan_jobs([tree / "a.png"], Naming(suffix=".webp"))
    assert named.target.name == "a_mdrn.webp"


def test_in_place_replaces_the_inputs(tree):
    jobs = plan_jobs([tree / "a.png"], Naming(in_place=True))
    assert jobs[0].source == jobs[0].target
    with pytest.raises(UsageError, match="--in-place"):
        Naming(Path("x"), in_place=True)


@pytest.mark.parametrize(
    ("inputs", "naming", "message"),
    [
        (["a.png", "sub/a.png"], {"output": "out"}, "both be written"),
        (["a.png", "b.jpg"], {"output": "a.png"}, "is a file"),
        (["a.png"], {"output": "none/x.png"}, "no folder"),
        (["a.png"], {"output": "b.jpg"}, "exists already"),
        (["a.png"], {"output": "x.xyz"}, "format"),
        (["a.png", "b.jpg"], {"output": "x.png"}, "several results need a folder"),
        (["sub"], {"output": "x.PNG"}, "several results need a folder"),
    ],
)
def test_what_cannot_go_well_is_refused_before_any_work(tree, inputs, naming, message):
    naming = {key: tree / value for key, value in naming.items()}
    with pytest.raises(UsageError, match=message):
        plan_jobs([tree / name for name in inputs], Naming(**naming))


def test_a_result_never_replaces_another_input(tree):
    """b.jpg converted to PNG in the same folder must not fall on an input of that name."""
    Image.new("RGB", (8, 8)).save(tree / "b.png")
    with pytest.raises(UsageError, match="replace the input"):
        plan_jobs([tree / "b.jpg", tree / "b.png"], Naming(tree, suffix=".png", existing="overwrite"))


def test_same_stem_with_one_format_is_a_collision(tree, tmp_path):
    Image.new("RGB", (8, 8)).save(tree / "a.jpg")
    with pytest.raises(UsageError, match="both be written"):
        plan_jobs([tree], Naming(tmp_path / "out", suffix=".png"))


def test_a_bad_file_never_stops_the_rest(tree, tmp_path, tiny_weights):
    broken = {"cut.png": (tree / "a.png").read_bytes()[:200], "text.jpg": b"hello", "empty.webp": b""}
    for name, data in broken.items():
        (tree / name).write_bytes(data)
    Image.new("CMYK", (8, 8)).save(tree / "ink.jpg")
    report = tmp_path / "report.json"
    done = run_mdrn(
        "denoise", "-r", tree, "-o", tmp_path / "out", "--sigma", 50, "--model", tiny_weights("color"), "--json",
        "--report", report,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    *objects, summary = map(json.loads, done.stdout.splitlines())
    assert (summary["done"], summary["skipped"], summary["failed"], summary["not_tried"]) == (5, 0, 4, 0)
    failed = {Path(o["input"]).name for o in objects if o["status"] == "failed"}
    assert failed == {*broken, "ink.jpg"} == {Path(f["input"]).name for f in summary["failures"]}
    assert done.stderr.count("error: ") == 4
    assert "Traceback" not in done.stderr
    assert sorted(content(tmp_path / "out")) == ["a.png", "b.jpg", "sub/a.png", "sub/deep/c.webp", "sub/deep/d.tif"]
    assert json.loads(report.read_text()) == {"results": objects, "summary": summary}


def test_a_second_run_does_only_what_is_missing(tree, tmp_path, tiny_weights):
    arguments = ["denoise", "-r", tree, "-o", tmp_path / "out", "--sigma", 50, "--model", tiny_weights("color")]
    assert run_mdrn(*arguments).returncode == 0
    before = content(tmp_path / "out")
    (tmp_path / "out" / "sub" / "a.png").unlink()
    (tree / "bad.png").write_text("no image")
    again = run_mdrn(*arguments, "--json")
    *pictures, summary = map(json.loads, again.stdout.splitlines())
    assert [summary[key] for key in ("done", "skipped", "failed")] == [1, 4, 1]
    assert len({tuple(about) for about in pictures}) == 1, "keys are the same"
    assert all((about["width"] is None) == (about["status"] != "done") for about in pictures)
    assert content(tmp_path / "out") == before


def test_all_failed_and_fail_fast(tmp_path, tiny_weights):
    for k in range(3):
        (tmp_path / f"{k}.png").write_text("no image")
    arguments = ["denoise", *tmp_path.glob("*.png"), "--sigma", 50, "--model", tiny_weights("color"), "--json"]
    everything = run_mdrn(*arguments)
    assert everything.returncode == 4
    first = run_mdrn(*arguments, "--fail-fast")
    assert first.returncode == 3  # of the others nothing is known
    assert json.loads(first.stdout.splitlines()[-1])["not_tried"] == 2


def test_what_is_skipped_is_told_of_before_a_failure_that_ends_the_run(tree, tmp_path):
    (tree / "a_mdrn.png").write_bytes((tree / "a.png").read_bytes())
    jobs = plan_jobs([tmp_path / "none.png", tree / "a.png"], Naming(existing="skip"))
    told = [(outcome.status, outcome.job.source.name) for outcome in run_jobs(jobs, DenoiseOptions(50), fail_fast=True)]
    assert told == [("skipped", "a.png"), ("failed", "none.png")]


@pytest.mark.parametrize(("count", "more"), [(20, None), (21, 1), (45, 25)])
def test_of_many_failures_a_screenful_is_told_again_and_how_many_there_are_more(tmp_path, capsys, count, more):
    jobs = plan_jobs([tmp_path / f"{k}.png" for k in range(count)], Naming())
    skipped = Job(tmp_path / "x.png", tmp_path / "x.png", skip="a result")
    outcomes = [foresee(job) for job in (*jobs, skipped)]
    show_summary(summarized(outcomes, count + 1), count + 1, as_json=False, quiet=False)
    counts, *told = capsys.readouterr().err.splitlines()
    assert counts == f"0 done, 1 skipped, {count} failed"
    assert told[:20] == [f"  no file or folder {tmp_path / f'{k}.png'}" for k in range(20)]
    rest = [f"  and {more} more; a report (--report FILE.json) lists all"] if more else []
    assert told[20:] == rest


@pytest.mark.parametrize(("count", "told"), [(3, "0, 1, 2"), (4, "0, 1, 2 ...")])
def test_of_links_that_are_not_followed_three_are_named(tmp_path, monkeypatch, capsys, count, told):
    monkeypatch.chdir(tmp_path)
    for k in range(count):
        Path(f"{k}").symlink_to(tmp_path)
    warn_of_others([Path(f"{k}") for k in range(count)])
    assert capsys.readouterr().err == f"warning: links to folders are not followed: {told}\n"


def test_what_was_done_is_told_with_the_noise_in_black_and_in_white(tmp_path, capsys):
    done = Facts(120, 80, "RGB", 8, 12.34, "estimate", None, (), SimpleNamespace(ends=(5.04, 25.26)))
    job = Job(tmp_path / "a.png", tmp_path / "b.png")
    show(Outcome(job, DONE, None, done, seconds=1.24), as_json=False, alone=True)
    show(Outcome(job, DONE, None, replace(done, by_intensity=None)), as_json=False, alone=True)
    about = f"{tmp_path / 'b.png'}: 120x80 RGB 8 bits, sigma 12.3 estimated"
    assert capsys.readouterr().err.splitlines() == [
        f"{about} (5.04 in black, 25.3 in white), 1.2 s",
        f"{about}, 0.0 s",
    ]


def test_fail_fast_tells_of_what_is_being_written_already(tmp_path, photo, monkeypatch, tiny_weights):
    """The first result fails when the second is restored; the second is being written when the run is to stop."""
    files = [tmp_path / f"{k}.png" for k in range(4)]
    for path in files:
        Image.fromarray(photo[:16, :16]).save(path)
    restored, writing, resumed = (threading.Event() for _ in range(3))
    restores, encodes = itertools.count(), itertools.count()
    restore, encode = Restorer.__call__, batch.encode_picture

    def restoring(*arguments):
        result = restore(*arguments)
        if next(restores):
            restored.set()
        return result

    def encoding(*arguments):
        if next(encodes) == 0:
            assert restored.wait(60)
            raise MdrnError("no room")
        writing.set()
        assert resumed.wait(60)
        return encode(*arguments)

    monkeypatch.setattr(Restorer, "__call__", restoring)
    monkeypatch.setattr(batch, "encode_picture", encoding)
    jobs = plan_jobs(files, Naming(tmp_path / "out"))
    outcomes = []
    for outcome in run_jobs(jobs, DenoiseOptions(50, str(tiny_weights("color"))), fail_fast=True):
        outcomes.append(outcome)
        assert writing.wait(60)
        resumed.set()
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "half"], 2, "precision must be one of"),
        (["--model", "none"], 5, "no checkpoint 'none'"),
        (["--model", "./none.safetensors"], 5, "no checkpoint file"),
        (["--device", "none"], 6, "no device 'none'"),
        (["--coarse-sigma", "5;5"], 2, "neither auto nor levels"),
        (["--in-place", "--skip-existing"], 2, "--skip-existing"),
    ],
)
def test_what_no_picture_can_be_denoised_with_is_told_once_and_before_any_work(arguments, code, message, tree):
    target = () if "--in-place" in arguments else ("-o", tree / "out")
    done = run_mdrn("denoise", tree, "--sigma", 50, *target, *arguments)
    assert done.returncode == code
    assert done.stderr.count("error:") == 1
    assert message in done.stderr
    assert not (tree / "out").exists()


def test_threads_that_make_no_sense_are_told_before_any_work(tree, monkeypatch):
    monkeypatch.setenv("MDRN_THREADS", "x")
    with pytest.raises(UsageError, match="MDRN_THREADS"):
        list(run_jobs(plan_jobs([tree], Naming(tree / "out")), DenoiseOptions(50)))


@pytest.mark.parametrize(
    "names", [("tree", "-o", "tree", "-f", "png"), ("tree/a.png", "-o", "tree"), ("tree/a.png", "-o", "tree/a.png")]
)
def test_an_input_is_not_overwritten_unless_in_place(names, tree, monkeypatch):
    """However the two are spelled."""
    monkeypatch.chdir(tree.parent)
    before = content(tree)
    source, *rest = (name.replace("tree", tree.name) for name in names)
    for spelled in (source, tree.parent / source):
        done = run_mdrn("denoise", spelled, *rest, "--sigma", 50, "--overwrite")
        assert done.returncode == 2, done.stderr
        assert "would replace the input" in done.stderr
    assert content(tree) == before


@pytest.mark.parametrize(
    ("arguments", "closed"),
    [
        ("denoise photos/a.png -o - -f png --sigma 50 --model {weights}", ">&-"),
        ("denoise - -o out.png --sigma 50 --model {weights}", "<&-"),
        ("denoise photos/a.png --json --dry-run", ">&-"),
        ("denoise photos/a.png -o none.png --json --sigma 50 --model {weights}", ">&-"),
        ("estimate photos/a.png", ">&-"),
        ("compare photos/a.png photos/a.png", ">&-"),
    ],
)
def test_a_closed_standard_stream_is_told_of(arguments, closed, tree, tiny_weights):
    command = f"{sys.executable} -m mdrn_cli {arguments.format(weights=tiny_weights('color'))} {closed}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False, cwd=tree.parent)
    assert done.returncode in (1, 4)
    assert done.stderr.count("is closed") == 1
    assert "unexpected" not in done.stderr
    assert not (tree.parent / "none.png").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream_where_libraries_write_errors(closed, tmp_path):
    script = """
import os, sys
from mdrn_cli.__main__ import main
sys.argv = ["mdrn", "--version"]
main()
number = os.open("opened", os.O_CREAT | os.O_WRONLY)
os.write(number, str(number).encode())
"""
    (tmp_path / "a.py").write_text(script)
    subprocess.run(["sh", "-c", f"{sys.executable} a.py {closed}"], check=True, cwd=tmp_path, capture_output=True)
    assert int((tmp_path / "opened").read_text()) > 2


def test_a_current_folder_that_is_gone_is_told_of(tree):
    (tree.parent / "gone").mkdir()
    script = f"cd gone; rmdir ../gone; {sys.executable} -m mdrn_cli denoise {tree}/a.png -o {tree}/b.png"
    done = subprocess.run(["sh", "-c", script], cwd=tree.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "error: the current folder is gone")
    (tree.parent / "gone").mkdir()
    script = f"cd gone; rmdir ../gone; {sys.executable} -m mdrn_cli --version"
    subprocess.run(["sh", "-c", script], cwd=tree.parent, capture_output=True, check=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_json_that_cannot_be_written_is_an_error_of_its_own(tree, tiny_weights):
    command = [sys.executable, "-m", "mdrn_cli", "denoise", str(tree / "a.png"), "--sigma", "50", "--json"]
    with Path("/dev/full").open("w") as full:
        command += ["--model", str(tiny_weights("color"))]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("cannot write stdout") == 1


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_report_is_written_though_nobody_reads_what_is_printed(tree, tmp_path, tiny_weights, dry):
    command = [sys.executable, "-m", "mdrn_cli", "denoise", str(tree), "-o", str(tmp_path / "out"), "--sigma", "50"]
    command += ["--model", str(tiny_weights("color")), "--json", "--report", str(tmp_path / "r.json"), *dry]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    summary = json.loads((tmp_path / "r.json").read_bytes())["summary"]
    assert (summary["planned"] if dry else summary["done"]) > 0


def test_an_interruption_stays_one_though_its_report_cannot_be_written(tree, tiny_weights, monkeypatch, capsys):
    def interrupt(*_arguments):
        (tree / "gone").rmdir()
        (tree / "gone").touch()
        raise KeyboardInterrupt

    (tree / "gone").mkdir()
    monkeypatch.setattr(Restorer, "__call__", interrupt)
    arguments = ["denoise", tree / "a.png", "--sigma", 50, "--model", tiny_weights("color")]
    arguments += ["--report", tree / "gone" / "r.json"]
    monkeypatch.setattr(sys, "argv", ["mdrn", *map(str, arguments)])
    assert run(app) == 130
    told = capsys.readouterr().err
    assert "cannot write" in told
    assert told.splitlines()[-1] == "interrupted"


def test_tracebacks_are_shown_of_each_of_several_files_if_asked_for(tree, tiny_weights):
    for name in ("cut.png", "sub/cut.png"):
        (tree / name).write_bytes((tree / "a.png").read_bytes()[:200])
    arguments = ["denoise", "-r", tree, "--sigma", 50, "--model", tiny_weights("color")]
    assert run_mdrn(*arguments).stderr.count("Traceback") == 0
    shown = run_mdrn(*arguments, "--debug", "--overwrite").stderr
    assert sum(line.startswith("error: ") for line in shown.splitlines()) == 2
    assert shown.count("\nmdrn_cli.errors.InputError: ") >= 2


def test_a_traceback_leads_to_where_the_fault_is_though_its_file_was_named_later(tree, tiny_weights, monkeypatch):
    """A name that is a word of the message is no naming of the file either."""

    def fail(*_arguments):
        raise InputError("floats should be from 0 to 1", "a hint")

    monkeypatch.setattr(Restorer, "__call__", fail)
    options = DenoiseOptions(50.0, str(tiny_weights("color")))
    (tree / "a.png").rename(tree / "to")
    monkeypatch.chdir(tree)
    (outcome,) = run_jobs(plan_jobs([Path("to")], Naming(Path("out.png"))), options)
    assert str(outcome.error) == "to: floats should be from 0 to 1"
    frames = traceback.extract_tb(outcome.error.__traceback__)
    assert frames[-1].name == "fail"


def test_in_place_keeps_the_file_when_it_fails(tree, tiny_weights):
    (tree / "cut.png").write_bytes((tree / "a.png").read_bytes()[:200])
    before = content(tree)
    done = run_mdrn(
        "denoise", tree / "a.png", tree / "cut.png", "--in-place", "--sigma", 50, "--model", tiny_weights("color")
    )
    assert done.returncode == 3
    after = content(tree)
    assert after.keys() == before.keys()
    assert after["cut.png"] == before["cut.png"]
    assert after["a.png"] != before["a.png"]
    assert Image.open(tree / "a.png").size == (40, 24)


def test_in_place_keeps_permissions_and_links(tree, tiny_weights):
    (tree / "a.png").chmod(0o640)
    (tree / "link.png").symlink_to("a.png")
    before = (tree / "a.png").read_bytes()
    done = run_mdrn("denoise", tree / "link.png", "--in-place", "--sigma", 50, "--model", tiny_weights("color"))
    assert done.returncode == 0, done.stderr
    assert (tree / "link.png").is_symlink()
    assert (tree / "a.png").read_bytes() != before
    assert (tree / "a.png").stat().st_mode & 0o777 == 0o640


def test_in_place_writes_the_format_of_the_file_behind_a_link(tree, tiny_weights):
    how = ["--sigma", 50, "--model", tiny_weights("color")]
    (tree / "link.png").symlink_to("b.jpg")
    assert run_mdrn("denoise", tree / "link.png", "--in-place", *how).returncode == 0
    assert Image.open(tree / "b.jpg").format == "JPEG"
    before = (tree / "b.jpg").read_bytes()
    assert run_mdrn("denoise", tree / "a.png", "-o", tree / "link.png", "--overwrite", *how).returncode == 0
    assert (tree / "link.png").is_symlink()
    assert (tree / "b.jpg").read_bytes() != before
    assert Image.open(tree / "b.jpg").format == "JPEG"


def test_a_link_to_a_file_that_is_not_there_stays_and_the_file_comes_to_be(tmp_path):
    (tmp_path / "link.png").symlink_to("elsewhere.png")
    write_atomically(tmp_path / "link.png", b"new")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "elsewhere.png").read_bytes() == b"new"
    (tmp_path / "lost.png").symlink_to("unmounted/a.png")
    with pytest.raises(MdrnError, match="cannot write"):
        write_atomically(tmp_path / "lost.png", b"new")
    assert (tmp_path / "lost.png").is_symlink()


def test_what_is_replaced_gives_nobody_more_rights(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.touch()
    path.chmod(0o660)
    if os.geteuid() == 0:
        os.chown(path, 1002, 2000)
        write_atomically(path, b"new")
        assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (1002, 2000, 0o660)
    given = []

    def own_group_alone(_descriptor, owner, group):
        if owner != -1:
            raise PermissionError
        given.append(group)

    monkeypatch.setattr("os.fchown", own_group_alone)
    write_atomically(path, b"new")
    assert given == [path.stat().st_gid if os.geteuid() else 2000]
    assert path.stat().st_mode & 0o777 == 0o660

    def refused(*_):
        raise PermissionError

    monkeypatch.setattr("os.fchown", refused)
    write_atomically(path, b"newer")
    assert path.stat().st_mode & 0o777 == 0o660, "of the same group"
    if os.geteuid() == 0:
        os.chown(path, 1002, 2000)
        write_atomically(path, b"newest")
        assert path.stat().st_mode & 0o777 == 0o600, "of another"
        os.chown(path, 1002, 2000)
        path.chmod(0o2760)
        write_atomically(path, b"run as that group")
        assert path.stat().st_mode & 0o7777 == 0o700


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid(), reason="root alone gives files to other groups")
def test_another_group_gains_nothing_by_a_result(tree, tiny_weights, request):
    """Nor does anybody by the sheet that shows it."""
    before = os.umask(0o022)
    request.addfinalizer(lambda: os.umask(before))
    how = ["--sigma", 50, "--model", tiny_weights("color"), "--compare", tree / "sheet.png", "--overwrite"]
    for mode, group, expected in (
        (0o640, 2000, 0o600),
        (0o644, 2000, 0o644),
        (0o604, 2000, 0o600),
        (0o640, os.getegid(), 0o640),
    ):
        os.chown(tree / "a.png", -1, group)
        (tree / "a.png").chmod(mode)
        for path in (tree / "a_mdrn.png", tree / "sheet.png"):
            path.unlink(missing_ok=True)
        assert run_mdrn("denoise", tree / "a.png", *how).returncode == 0
        modes = {path.stat().st_mode & 0o777 for path in (tree / "a_mdrn.png", tree / "sheet.png")}
        assert modes == {expected}
    os.chown(tree / "a.png", -1, os.getegid())
    (tree / "a_mdrn.png").chmod(0o644)
    sheet = tree / "both.png"
    assert run_mdrn("compare", tree / "a.png", tree / "a_mdrn.png", "-o", sheet).returncode == 0
    assert sheet.stat().st_mode & 0o777 == 0o640, "what all may who may read both"


@pytest.mark.skipif(os.name == "nt", reason="no rights of groups and others")
def test_a_result_is_read_by_nobody_who_could_not_read_its_input(tree, tiny_weights):
    usual = (tree / "a.png").stat().st_mode & 0o777
    for mode, expected in ((0o600, 0o600), (0o444, usual & 0o644), (0o777, usual)):
        (tree / "a.png").chmod(mode)
        done = run_mdrn("denoise", tree / "a.png", "--sigma", 50, "--model", tiny_weights("color"))
        assert done.returncode == 0, done.stderr
        assert (tree / "a_mdrn.png").stat().st_mode & 0o777 == expected
        (tree / "a_mdrn.png").unlink()


def test_a_write_protected_file_is_not_replaced(tree):
    """Photographers lock originals that way; who may write to the folder could replace them all the same."""
    (tree / "a.png").chmod(0o444)
    before = content(tree)
    done = run_mdrn("denoise", tree, "--in-place", "--dry-run", "--json")
    objects = map(json.loads, done.stdout.splitlines())
    told = {Path(one["input"]).name: (one["status"], one["error"]) for one in objects if "input" in one}
    assert told["a.png"] == ("failed", f"{tree / 'a.png'} is write-protected")
    assert told["b.jpg"] == ("planned", None)
    done = run_mdrn("denoise", tree / "b.jpg", "-o", tree / "a.png", "--overwrite")
    assert (done.returncode, "write-protected" in done.stderr) == (2, True)
    assert content(tree) == before


def test_neither_a_folder_nor_an_empty_file_is_a_result(tree, tmp_path):
    """A full disk leaves the latter, of other tools."""
    out = tmp_path / "out"
    (out / "a.png").mkdir(parents=True)
    (out / "b.jpg").touch()
    (out / "sub").mkdir()
    (out / "sub" / "a.png").write_bytes(b"a result")
    jobs = {job.source.relative_to(tree).as_posix(): job for job in plan_jobs([tree], Naming(out, recursive=True))}
    assert jobs["a.png"].problem.message == f"{out / 'a.png'} exists already and is not a file"
    assert not jobs["b.jpg"].skip
    assert not jobs["b.jpg"].problem
    assert jobs["sub/a.png"].skip
    with pytest.raises(UsageError, match="exists already"):
        plan_jobs([tree / "b.jpg"], Naming(out / "b.jpg"))


@pytest.mark.parametrize("place", ["a.png", "new.png"])
def test_what_happens_while_a_result_is_written_is_not_overwritten(place, tree, tiny_weights, monkeypatch):
    """Large ones take seconds to reach a disk."""
    where, fsync, options = tree / place, os.fsync, DenoiseOptions(model=str(tiny_weights("color")), sigma=50)

    def slow(descriptor: int) -> None:
        fsync(descriptor)
        where.write_bytes(b"by another program")

    monkeypatch.setattr("mdrn_cli.files.os.fsync", slow)
    naming = Naming(in_place=True) if where.exists() else Naming(where)
    (outcome,) = run_jobs(plan_jobs([tree / "a.png"], naming), options)
    assert outcome.status == "failed"
    assert where.read_bytes() == b"by another program"
    assert not list(tree.glob(".*.part"))


def test_an_input_that_is_replaced_while_it_is_read_is_told_of(tree, tiny_weights, monkeypatch):
    """Its pixels and what else it holds may be of two files."""
    read = batch.read_picture

    def meanwhile(source):
        picture = read(source)
        shutil.copy(tree / "sub" / "a.png", tree / "other.png")
        (tree / "other.png").replace(tree / "a.png")
        return picture

    monkeypatch.setattr(batch, "read_picture", meanwhile)
    jobs = plan_jobs([tree / "a.png"], Naming(tree / "new.png"))
    (outcome,) = run_jobs(jobs, DenoiseOptions(model=str(tiny_weights("color")), sigma=50))
    assert (outcome.status, "was changed" in outcome.error.message) == ("failed", True)
    assert not (tree / "new.png").exists()


def test_a_file_is_replaced_by_one_that_holds_as_many_pictures(tree, tiny_weights, photo):
    """A map of depth or of highlights, as phones add it, would be lost."""
    how = ["--in-place", "--sigma", 50, "--model", tiny_weights("color")]
    path = tree / "b.jpg"
    image = Image.fromarray(photo[:24, :40])
    image.save(path, format="MPO", save_all=True, append_images=[image.rotate(180)])
    whole = path.read_bytes()
    done = run_mdrn("denoise", path, *how)
    assert done.returncode == 4
    assert "further images" in done.stderr
    assert path.read_bytes() == whole
    assert run_mdrn("denoise", path, "-o", tree / "new.jpg", *how[1:]).returncode == 0
    assert run_mdrn("denoise", path, *how, "--overwrite").returncode == 0
    assert len(path.read_bytes()) < len(whole)


def test_an_interruption_while_the_last_result_is_written_tells_what_was_done(tree, tiny_weights, monkeypatch):
    encode = batch.encode_picture

    def slow(*arguments):
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(1.5)
        return encode(*arguments)

    monkeypatch.setattr(batch, "encode_picture", slow)
    outcomes = []
    jobs = plan_jobs([tree / "a.png"], Naming(tree / "new.png"))
    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(jobs, DenoiseOptions(model=str(tiny_weights("color")), sigma=50), on_outcome=outcomes.append))
    assert [outcome.status for outcome in outcomes] == ["done"]
    assert (tree / "new.png").exists()


def test_access_control_lists_are_kept(tmp_path, monkeypatch):
    """Their mask stands where a file's mode has the rights of its group."""
    entries = [(0x01, 6, 0xFFFFFFFF), (0x02, 6, 1234), (0x04, 0, 0xFFFFFFFF), (0x10, 6, 0xFFFFFFFF)]
    rights = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in (*entries, (0x20, 0, 0xFFFFFFFF)))
    path, name = tmp_path / "a.png", "system.posix_acl_access"
    path.touch(0o600)
    try:
        os.setxattr(path, name, rights)
    except (AttributeError, OSError):
        pytest.skip("no access control lists here")
    write_atomically(path, b"new")
    assert (os.getxattr(path, name), path.stat().st_mode & 0o777) == (rights, 0o660)

    def refused(*_):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr("os.setxattr", refused)
        write_atomically(path, b"newer")
    assert path.stat().st_mode & 0o777 == 0o600
    os.setxattr(tmp_path, "system.posix_acl_default", rights)
    plain = tmp_path / "b.png"
    plain.touch()
    os.removexattr(plain, name)
    plain.chmod(0o640)
    write_atomically(plain, b"new")
    assert name not in os.listxattr(plain), "that the folder gives to new files"


def test_what_is_replaced_keeps_the_attributes_of_its_user(tree, tiny_weights):
    try:
        os.setxattr(tree / "a.png", "user.tag", b"holiday")
    except (AttributeError, OSError):
        pytest.skip("no extended attributes here")
    done = run_mdrn("denoise", tree / "a.png", "--in-place", "--sigma", 50, "--model", tiny_weights("color"))
    assert done.returncode == 0, done.stderr
    assert os.getxattr(tree / "a.png", "user.tag") == b"holiday"


def test_what_cannot_be_denoised_does_not_stop_the_rest(tree, tmp_path, tiny_weights):
    """A folder without images, a file that is missing, and one that is no image by its name."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    wrong = [tmp_path / name for name in ("empty", "none.png", "notes.txt")]
    arguments = ["denoise", *wrong, tree / "a.png", "-o", tmp_path / "out"]
    done = run_mdrn(*arguments, "--sigma", 50, "--model", tiny_weights("color"), "--json")
    assert done.returncode == 3, done.stderr
    *objects, summary = map(json.loads, done.stdout.splitlines())
    assert (summary["done"], summary["failed"]) == (1, 3)
    assert [about["error"] for about in objects] == [
        f"no images in {tmp_path / 'empty'}",
        f"no file or folder {tmp_path / 'none.png'}",
        "cannot tell the format of 'notes.txt'",
        None,
    ]
    assert [about["output"] for about in objects if about["error"]] == [None] * 3
    assert (tmp_path / "out" / "a.png").is_file()


def test_an_input_that_is_passed_over_has_no_output(tree):
    shutil.copy(tree / "a.png", tree / "a_mdrn.png")
    done = run_mdrn("denoise", tree / "a.png", tree / "a_mdrn.png", "--skip-existing", "--json")
    existing, passed_over, _ = map(json.loads, done.stdout.splitlines())
    assert (existing["output"], existing["status"]) == (f"{tree}/a_mdrn.png", "skipped")
    assert (passed_over["output"], passed_over["status"]) == (None, "skipped")


def test_a_dry_run_lists_and_does_nothing(tree, tmp_path):
    before = content(tmp_path)
    done = run_mdrn("denoise", tree, "--sigma", 50, "--dry-run")
    assert done.stdout.splitlines() == [f"{tree}/a.png -> {tree}/a_mdrn.png", f"{tree}/b.jpg -> {tree}/b_mdrn.jpg"]
    assert content(tmp_path) == before
    reported = run_mdrn("denoise", tree, "--sigma", 50, "--dry-run", "--report", tmp_path / "r.json")
    assert reported.stdout == done.stdout
    report = json.loads((tmp_path / "r.json").read_bytes())
    assert [about["status"] for about in report["results"]] == ["planned"] * 2
    assert report["summary"]["planned"] == 2
    assert run_mdrn("denoise", tree, "--sigma", 50, "--dry-run", "--report", tmp_path / "r.json").returncode == 0
    report["summary"]["dry_run"] = False
    (tmp_path / "r.json").write_text(json.dumps(report))
    real = run_mdrn("denoise", tree, "--sigma", 50, "--dry-run", "--report", tmp_path / "r.json")
    assert (real.returncode, "exists already" in real.stderr) == (2, True), "of a run that has done something"
    missing = run_mdrn("denoise", tree, "--sigma", 50, "--dry-run", "--device", "none-such")
    assert (missing.returncode, "no device 'none-such' here" in missing.stderr) == (6, True)
    (tree / "a_mdrn.png").write_bytes(b"a result")
    (tree / "b_mdrn.jpg").touch()
    for _ in range(2):  # nothing being left to do
        nothing = ["denoise", tree, "--sigma", 50, "--dry-run", "--skip-existing", "--report", tmp_path / "none.json"]
        assert run_mdrn(*nothing).returncode == 0
    (tree / "b_mdrn.jpg").unlink()
    listed = run_mdrn("denoise", tree, tree / "none.png", "--dry-run", "--json")
    assert listed.returncode == 3
    skipped, planned, failed, summary = map(json.loads, listed.stdout.splitlines())
    assert [about["status"] for about in (skipped, planned, failed)] == ["skipped", "planned", "failed"]
    assert skipped["reason"] == f"{tree}/a_mdrn.png exists already"
    assert planned["output"] == f"{tree}/b_mdrn.jpg"
    assert (summary["planned"], summary["skipped"], summary["failed"], summary["done"]) == (1, 1, 1, 0)


def pipe(arguments, data: bytes):
    return run_mdrn("denoise", *arguments, piped=data)


def test_stdin_and_stdout(tree, tmp_path, tiny_weights):
    how = ["--sigma", 50, "--model", tiny_weights("color")]
    data = (tree / "a.png").read_bytes()
    command = [sys.executable, "-m", "mdrn_cli", "denoise", "-", "-o", "-", "-f", "png", *map(str, how)]
    piped = subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)
    assert piped.returncode == 0, piped.stderr
    assert run_mdrn("denoise", tree / "a.png", "-o", tmp_path / "file.png", *how).returncode == 0
    assert piped.stdout == (tmp_path / "file.png").read_bytes()
    assert pipe(["-", "-o", tmp_path / "x.png", *how], data).returncode == 0
    assert (tmp_path / "x.png").read_bytes() == piped.stdout
    assert pipe([tree / "a.png", "-o", "-", "-f", "png", *how], b"").output == piped.stdout


def test_a_pipe_into_a_file_is_planned_skipped_and_told_of_as_a_file_is(tree, tmp_path, tiny_weights):
    how = ["-", "-o", tmp_path / "x.png", "--sigma", 50, "--model", tiny_weights("color"), "--json"]
    data = (tree / "a.png").read_bytes()
    planned = pipe([*how, "--dry-run"], data)
    assert [json.loads(line).get("status") for line in planned.stdout.splitlines()] == ["planned", None]
    assert not (tmp_path / "x.png").exists()
    report, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    done = pipe([*how, "--report", report, "--compare", sheet], data)
    about, summary = map(json.loads, done.stdout.splitlines())
    assert (about["input"], about["output"], about["status"]) == ("-", str(tmp_path / "x.png"), "done")
    assert json.loads(report.read_text()) == {"results": [about], "summary": summary}
    assert sheet.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "x.png").write_text("precious")
    skipped = pipe([*how, "--skip-existing"], b"never read")
    assert (skipped.returncode, json.loads(skipped.stdout.splitlines()[0])["status"]) == (0, "skipped")
    assert pipe(how, data).returncode == 2
    assert (tmp_path / "x.png").read_text() == "precious"


def test_a_pipe_to_stdout_has_a_dry_run_and_a_report(tree, tmp_path, tiny_weights):
    how = [tree / "a.png", "-o", "-", "-f", "png", "--sigma", 50, "--model", tiny_weights("color")]
    assert pipe([*how, "--dry-run"], b"").stdout == f"{tree / 'a.png'} -> -\n"
    done = pipe([*how, "--report", tmp_path / "r.json"], b"")
    assert done.output.startswith(b"\x89PNG")
    assert json.loads((tmp_path / "r.json").read_text())["results"][0]["output"] == "-"


def test_a_quiet_run_says_nothing_but_warnings_and_errors(tree, tmp_path, tiny_weights):
    how = ["--sigma", 50, "--model", tiny_weights("color"), "--quiet"]
    done = run_mdrn("denoise", tree, "-o", tmp_path / "out", *how)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(list((tmp_path / "out").iterdir())) == 2
    (tree / "c.png").write_bytes(b"none")
    Image.new("P", (40, 40)).save(tree / "d.png")
    done = run_mdrn("denoise", tree, "-o", tmp_path / "out", *how)
    assert done.returncode == 3
    error, warning = sorted(done.stderr.splitlines())
    assert (error[:6], warning[:8]) == ("error:", "warning:")


def test_names_that_the_locale_cannot_encode(tree):
    name = tree / "\u017e.png"
    (tree / "a.png").rename(name)
    command = [sys.executable, "-m", "mdrn_cli", "denoise", str(name), "--dry-run"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1:strict"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u017e.png" in done.stdout


def test_a_run_folder_is_a_model(tree, tmp_path, tiny_weights, monkeypatch):
    from mdrn_cli.weights import explicit_path

    run = tmp_path / "run"
    run.mkdir()
    (run / "last.safetensors").write_bytes(tiny_weights("color").read_bytes())
    done = run_mdrn("denoise", tree / "a.png", "-o", tmp_path / "x.png", "--model", run, "--sigma", 50, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["model"]["name"] == str(run)
    monkeypatch.chdir(tmp_path)
    (run / "best.safetensors").touch()
    run.rename(tmp_path / "mdrn")
    assert explicit_path("mdrn") is None, "what is bundled has its name to itself"
    (tmp_path / "mdrn").rename(run)
    assert explicit_path("run") == Path("run", "best.safetensors")
    monkeypatch.chdir(run)
    assert explicit_path("") is None
    (run / "last.safetensors").rename(run / "best")
    assert explicit_path("best") == Path("best"), "a file without suffix"


def test_a_name_without_suffix_is_a_file_in_the_format_asked_for(tree, tmp_path, tiny_weights):
    how = ["-f", "png", "--sigma", 50, "--model", tiny_weights("color")]
    assert run_mdrn("denoise", tree / "b.jpg", "-o", tmp_path / "file", *how).returncode == 0
    assert pipe(["-", "-o", tmp_path / "piped", *how], (tree / "b.jpg").read_bytes()).returncode == 0
    assert (tmp_path / "file").read_bytes() == (tmp_path / "piped").read_bytes()
    assert (tmp_path / "file").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_ends_the_wait_for_a_pipe(tmp_path):
    termios = pytest.importorskip("termios")
    fcntl = pytest.importorskip("fcntl")
    command = [sys.executable, "-m", "mdrn_cli", "denoise", "-", "-o", str(tmp_path / "x.png")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(b"\x89PNG\r\n\x1a\n" + bytes(8))
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)) != bytes(4):  # until it was read
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    process.stdin.close()


@pytest.mark.parametrize(
    ("arguments", "data", "code", "message"),
    [
        (["-", "-o", "x.jpg", "-f", "png"], b"", 2, "--format png is not the format of x.jpg"),
        (["-", "-o", "-", "-f", "png", "--json"], b"", 2, "--json"),
        (["-", "--in-place"], b"", 2, "--in-place"),
        (["-", "-o", "x.png", "--in-place"], b"", 2, "--in-place"),
        (["-", "-o", "folder/"], b"", 2, "folder is a folder"),
        (["-", "-o", "none/x.png"], b"", 2, "no folder none"),
        (["-", "-o", "-"], b"", 2, "--format"),
        (["-"], b"", 2, "needs --output"),
        (["-", "x.png", "-o", "-", "-f", "png"], b"", 2, "single input"),
        (["-", "-o", "-", "-f", "png"], b"not an image", 4, "not an image"),
        (["-", "-o", "-", "-f", "png"], b"", 4, "not an image"),
        (["none.png", "-o", "-", "-f", "png"], b"", 4, "none.png"),
    ],
)
def test_pipes_that_cannot_work(arguments, data, code, message, tiny_weights):
    done = pipe([*arguments, "--sigma", "50", "--model", tiny_weights("color")], data)
    assert (done.returncode, done.output) == (code, b"")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["photos/a.png", "--dry-run"], 0),
        (["-r", "photos", "-o", "photos"], 2),
        (["photos/a.png", "-o", "photos/b.jpg"], 2),
        (["photos/a.png", "-o", "photos/b.jpg", "--skip-existing"], 0),
        (["photos/notes.png"], 4),
        (["photos/a.png", "--model", "none"], 5),
        (["photos/a.png", "--model", "none", "--dry-run"], 5),
        (["photos/a.png", "--model", "none.safetensors", "--dry-run"], 5),
        (["photos/a.png", "--manifest", "none.json", "--dry-run"], 5),
        (["photos/a.png", "--model", "mdrn-2b-color-25", "--dry-run"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_where_no_network_runs_nobody_waits_for_torch(arguments, code, tree):
    (tree / "notes.txt").rename(tree / "notes.png")
    script = (
        "import sys; from mdrn_cli.cli import main\n"
        f"sys.argv = ['mdrn', 'denoise', *{arguments}]\n"
        "code = main()\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tree.parent)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize("command", [["--version"], ["denoise", "photos/a.png", "--sigma", "50", "--model"]])
def test_garbage_is_collected_until_the_end_and_not_sought_when_the_process_ends(command, tree, tiny_weights):
    if command[-1] == "--model":
        command = [*command, str(tiny_weights("color"))]
    script = (
        "import gc, sys; from mdrn_cli.cli import main\n"
        f"sys.argv = ['mdrn', *{command}]\n"
        "assert main() == 0 and gc.isenabled() and gc.get_freeze_count() > 10_000\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tree.parent)


def test_loading_a_network_is_not_part_of_a_picture_s_seconds(tree, monkeypatch, tiny_weights):
    checkpoint = load_checkpoint(tiny_weights("color"))

    def slow(_path):
        time.sleep(3)
        return checkpoint

    monkeypatch.setattr("mdrn_cli.checkpoint.load_checkpoint", slow)
    (outcome,) = run_jobs(plan_jobs([tree / "a.png"], Naming()), DenoiseOptions(50, str(tiny_weights("color"))))
    assert 0 < outcome.seconds < 3


def test_a_picture_s_seconds_are_those_of_reading_restoring_and_writing(tree, monkeypatch, tiny_weights):
    now = [0.0]

    def taking(seconds, work):
        def slow(*arguments):
            now[0] += seconds
            return work(*arguments)

        return slow

    monkeypatch.setattr(batch, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(batch, "read_picture", taking(1_000, batch.read_picture))
    monkeypatch.setattr(Restorer, "__call__", taking(10_000, Restorer.__call__))
    monkeypatch.setattr(batch, "encode_picture", taking(100_000, batch.encode_picture))
    (outcome,) = run_jobs(plan_jobs([tree / "a.png"], Naming()), DenoiseOptions(50, str(tiny_weights("color"))))
    assert outcome.seconds == pytest.approx(111_000, abs=500), "but for the loading of a network"


def test_an_image_is_not_written_to_a_terminal(tree, tiny_weights):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "mdrn_cli", "denoise", str(tree / "a.png"), "-o", "-", "-f", "png"]
    command += ["--sigma", "50", "--model", str(tiny_weights("color"))]
    done = subprocess.run(command, stdout=slave, stderr=subprocess.PIPE, check=False)
    os.close(slave)
    os.close(master)
    assert done.returncode == 2
    assert b"terminal" in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (signal.SIGINT, 130, b"interrupted"),
        (signal.SIGTERM, 143, b"terminated"),
        (getattr(signal, "SIGHUP", None), 129, b"hung up"),
    ],
)
def test_a_run_that_is_ended_keeps_finished_files_and_tells_of_them(tmp_path, photo, tiny_weights, number, code, told):
    if number is None:
        pytest.skip("no such signal on this system")
    folder = tmp_path / "many"
    folder.mkdir()
    for k in range(7):
        Image.fromarray(photo[: 200 + k, :200]).save(folder / f"{k:03d}.png")
    for k in range(7, 300):
        shutil.copyfile(folder / f"{k % 7:03d}.png", folder / f"{k:03d}.png")
    options = ["--model", tiny_weights("color"), "--json", "--report", tmp_path / "report.json"]
    before = signal.signal(number, signal.default_int_handler)  # under nohup it is ignored, and so by what one starts
    command = [sys.executable, "-m", "mdrn_cli", "denoise", folder, "-o", tmp_path / "out", "--sigma", "50", *options]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    signal.signal(number, before)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("*.png"))) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    assert b"Traceback" not in stderr
    assert stderr.splitlines()[-1] == told
    finished = list((tmp_path / "out").iterdir())
    assert 5 <= len(finished) < 300
    *results, summary = map(json.loads, stdout.splitlines())
    assert json.loads((tmp_path / "report.json").read_bytes()) == {"results": results, "summary": summary}
    assert len(finished) - 1 <= summary["done"] <= len(finished)  # one may have come between its file and its line
    assert summary["done"] + summary["not_tried"] == 300
    for path in finished:
        assert path.suffix == ".png"
        Image.open(path).load()


@pytest.fixture
def two_in_tiles(tmp_path, photo, tiny_weights):
    """Jobs of two pictures of several tiles each, and how to do them."""
    for name in ("a.png", "b.png"):
        Image.fromarray(photo[:200, :300]).save(tmp_path / name)
    jobs = plan_jobs([tmp_path / "a.png", tmp_path / "b.png"], Naming(tmp_path / "out"))
    return jobs, DenoiseOptions(50, str(tiny_weights("color")), tile=192)


def test_an_outcome_is_told_while_the_next_picture_is_computed(two_in_tiles):
    jobs, options = two_in_tiles
    events = []

    def on_tile(done, total):
        time.sleep(0.2)  # a picture is written meanwhile
        events.append(f"{done} of {total}")

    given = list(run_jobs(jobs, options, on_tile=on_tile, on_outcome=events.append))
    tiles = [event for event in events if isinstance(event, str)]
    first, second = (events.index(outcome) for outcome in given)
    assert len(tiles) // 2 < first < second - 1, "amidst the tiles of the second picture"
    assert len(events) == len(tiles) + 2


def test_what_telling_raises_is_no_failure_of_a_picture(two_in_tiles):
    def refuse(_outcome):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        list(run_jobs(*two_in_tiles, on_tile=lambda _done, _total: time.sleep(0.3), on_outcome=refuse))


def test_ctrl_c_while_the_command_line_is_imported(monkeypatch, capsys):
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "mdrn_cli.cli", Interrupted("mdrn_cli.cli"))
    assert main() == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_run_whose_device_fails_tells_what_it_had_done(tmp_path, monkeypatch, photo, tiny_weights):
    """That of a picture that is being written, too."""
    for k in range(4):
        Image.fromarray(photo[:16, :16]).save(tmp_path / f"{k}.png")
    (tmp_path / "0.png").write_bytes(b"none")
    restore, encode, pictures = Restorer.__call__, batch.encode_picture, itertools.count()
    writing, lost = threading.Event(), threading.Event()

    def lose_device(self, picture, on_tile):
        if next(pictures) == 0:
            return restore(self, picture, on_tile)
        assert writing.wait(60)
        lost.set()
        raise DeviceError("the GPU is lost")

    def encode_slowly(*args):
        writing.set()
        assert lost.wait(60)
        return encode(*args)

    monkeypatch.setattr(Restorer, "__call__", lose_device)
    monkeypatch.setattr(batch, "encode_picture", encode_slowly)
    command = ["denoise", str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(tiny_weights("color"))]
    monkeypatch.setattr(sys, "argv", ["mdrn", *command, "--report", str(tmp_path / "report.json")])
    assert run(app) == DeviceError.exit_code
    summary = json.loads((tmp_path / "report.json").read_bytes())["summary"]
    assert (summary["done"], summary["failed"], summary["not_tried"]) == (1, 1, 2)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.png"]


def test_reading_and_writing_overlap_with_computing(tmp_path, monkeypatch, photo, tiny_weights):
    """A picture is computed while the next one is read and the one before it is written: each waits for the others."""
    files = [tmp_path / f"{k}.png" for k in range(4)]
    for path in files:
        Image.fromarray(photo[:16, :16]).save(path)
    stages = ("read_picture", "__call__", "encode_picture")
    begun = {(stage, k): threading.Event() for stage in stages for k in range(len(files))}

    def waiting(owner, stage, *others):
        """The same function, which waits until each of `others`, a stage and a difference of places, has begun."""
        function, places = getattr(owner, stage), itertools.count()

        def wait(*args, **kwargs):
            k = next(places)
            begun[stage, k].set()
            for other, step in others:
                if (other, k + step) in begun:
                    assert begun[other, k + step].wait(60), f"{stage} {k} is not overlapped by {other} {k + step}"
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, stage, wait)

    waiting(batch, "read_picture", ("__call__", -1))
    waiting(batch.Restorer, "__call__", ("read_picture", 1), ("encode_picture", -1))
    waiting(batch, "encode_picture", ("__call__", 1))
    jobs = plan_jobs(files, Naming(tmp_path / "out"))
    outcomes = list(run_jobs(jobs, DenoiseOptions(50.0, str(tiny_weights("color")))))
    assert [outcome.error for outcome in outcomes] == [None] * len(files)


def test_pictures_that_memory_has_no_room_for_are_done_one_after_another(tmp_path, monkeypatch, photo, tiny_weights):
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for path in files:
        Image.fromarray(photo[:200, :200]).save(path)
    stages = []

    def noted(owner, stage):
        function = getattr(owner, stage)
        monkeypatch.setattr(owner, stage, lambda *args: (stages.append(stage), function(*args))[1])

    for owner, stage in ((batch, "read_picture"), (Restorer, "__call__"), (batch, "encode_picture")):
        noted(owner, stage)
    options = DenoiseOptions(50.0, str(tiny_weights("color")), tile=192, memory=9 * 200 * 200 * 3)
    outcomes = list(run_jobs(plan_jobs(files, Naming(tmp_path / "out")), options))
    assert [outcome.error for outcome in outcomes] == [None] * len(files)
    assert stages == ["read_picture", "__call__", "encode_picture"] * len(files)


def test_outcomes_hold_no_pixels(tree, tmp_path, tiny_weights, monkeypatch):
    """A run over thousands of files keeps none of them."""
    (tree / "sub" / "none.png").write_bytes(b"none")
    jobs, encode, pixels = plan_jobs([tree], Naming(tmp_path / "out")), batch.encode_picture, []

    def noted(picture, *args):
        pixels.append(weakref.ref(picture.channels))
        return encode(picture, *args)

    monkeypatch.setattr(batch, "encode_picture", noted)
    outcomes = list(run_jobs(jobs, DenoiseOptions(50.0, str(tiny_weights("color")))))
    assert [outcome.status for outcome in outcomes].count("done") == len(pixels) > 1
    gc.collect()
    assert not any(reference() is not None for reference in pixels)


@pytest.mark.parametrize("memory", [2 * 2**30, 500 * 2**20])
def test_a_picture_as_read_is_let_go_before_its_result_is_encoded(tree, tmp_path, tiny_weights, monkeypatch, memory):
    """Of an only file, and of all where there is no room for others to be read meanwhile."""
    encode, read, alive, made = batch.encode_picture, batch.read_picture, [], []

    def reading(source):
        picture = read(source)
        made.append(weakref.ref(picture.channels))
        return picture

    def noted(picture, *args):
        deadline = time.monotonic() + 5
        while made[0]() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        alive.append(made[0]())
        return encode(picture, *args)

    monkeypatch.setattr(batch, "read_picture", reading)
    monkeypatch.setattr(batch, "encode_picture", noted)
    options = DenoiseOptions(50.0, str(tiny_weights("color")), memory=memory, tile=192)
    (outcome,) = run_jobs(plan_jobs([tree / "a.png"], Naming(tmp_path / "out.png")), options)
    assert outcome.status == "done"
    assert alive == [None]


def broken_inputs(folder: Path) -> set[str]:
    """Ten inputs that cannot be restored, each for a reason of its own."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    for suffix in ("png", "jpg", "tif"):
        image.save(folder / f"whole.{suffix}")
        whole = (folder / f"whole.{suffix}").read_bytes()
        (folder / f"whole.{suffix}").unlink()
        (folder / f"cut-{suffix}.{suffix}").write_bytes(whole[: len(whole) // 2])
        if suffix == "png":
            size = (100_000).to_bytes(4, "big")
            header = whole[12:16] + size + size + whole[24:29]
            huge = whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]
            (folder / "huge.png").write_bytes(huge)
    (folder / "empty.webp").write_bytes(b"")
    (folder / "text.bmp").write_text("hello")
    Image.new("CMYK", (16, 16)).save(folder / "cmyk.jpg")
    image.save(folder / "animated.webp", save_all=True, append_images=[image.rotate(90)])
    image.save(folder / "pages.tif", save_all=True, append_images=[image.rotate(90)])
    (folder / "noise.png").write_bytes(np.random.default_rng(1).bytes(5000))
    return {path.name for path in folder.iterdir()}


def test_two_hundred_files_ten_of_them_broken(tmp_path, photo, tiny_weights):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    broken = broken_inputs(folder)
    assert len(broken) == 10
    for k in range(190):
        suffix = ("png", "jpg", "tif", "webp", "bmp")[k % 5]
        Image.fromarray(photo[k : k + 20, k : k + 24]).save(folder / f"{k:03d}.{suffix}")
    before = content(folder)
    report = tmp_path / "report.json"
    arguments = ["denoise", folder, "-o", out, "--sigma", 50, "--model", tiny_weights("color"), "--report", report]
    done = run_mdrn(*arguments)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    _, told_so, failures = done.stderr.partition("190 done, 0 skipped, 10 failed\n")
    assert told_so
    assert all(f"{folder / name}" in line for name, line in zip(sorted(broken), failures.splitlines(), strict=True))
    told = json.loads(report.read_text())
    assert {Path(failure["input"]).name for failure in told["summary"]["failures"]} == broken
    assert len({failure["error"] for failure in told["summary"]["failures"]}) == 10
    assert {path.name for path in out.iterdir()} == before.keys() - broken
    assert content(folder) == before
    again = run_mdrn(*arguments)
    assert "0 done, 190 skipped, 10 failed" in again.stderr

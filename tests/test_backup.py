"""`mdrn denoise --in-place --backup`: what is replaced is kept, and not denoised twice."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdrn_cli.batch import run_jobs
from mdrn_cli.collisions import refuse_extra
from mdrn_cli.errors import UsageError
from mdrn_cli.jobs import plan_jobs
from mdrn_cli.naming import Naming
from mdrn_cli.replacing import read_again
from mdrn_cli.restore import DenoiseOptions

MOMENT = 1_000_000_000_000_000_000


@pytest.fixture
def folder(tmp_path, photo):
    """Of two noisy pictures, one in a folder of its own."""
    noise = np.random.default_rng(0).normal(0, 20, (64, 64, 3))
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for k, name in enumerate(("a.png", "more/b.png")):
        pixels = np.clip(photo[64 * k : 64 * k + 64, :64] + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
        os.utime(tmp_path / "photos" / name, ns=(MOMENT, MOMENT))
    return tmp_path / "photos"


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def in_place(tiny_weights):
    """A run with `--in-place --backup .orig`; gives what became of each file and why."""
    options = DenoiseOptions(20, str(tiny_weights("color")))

    def denoise(*inputs, existing="error"):
        naming = Naming(in_place=True, backup=".orig", existing=existing, recursive=True)
        outcomes = run_jobs(plan_jobs(inputs, naming), options)
        return {each.job.source.name: (each.status, each.job.skip or str(each.error or "")) for each in outcomes}

    return denoise


def test_what_is_replaced_is_kept_and_a_second_run_leaves_it(folder, in_place):
    before = content_of(folder)
    assert in_place(folder) == {"a.png": ("done", ""), "b.png": ("done", "")}
    after = content_of(folder)
    assert {*after} == {"a.png", "a.png.orig", "more/b.png", "more/b.png.orig"}
    for name, content in before.items():
        assert after[f"{name}.orig"] == content != after[name]
        assert (folder / f"{name}.orig").stat().st_mtime_ns == MOMENT
    for given in ([folder], [folder / "a.png", folder / "more/b.png"]):
        told = in_place(*given)
        assert {status for status, _ in told.values()} == {"skipped"}
        assert told["a.png"][1] == f"its original is kept as {folder / 'a.png.orig'} already"
    assert content_of(folder) == after


def test_overwrite_denoises_again_and_keeps_the_first(folder, in_place):
    before = content_of(folder)
    in_place(folder)
    once = content_of(folder)
    assert in_place(folder, existing="overwrite")["a.png"] == ("done", "")
    twice = content_of(folder)
    assert twice["a.png.orig"] == before["a.png"]
    assert twice["a.png"] != once["a.png"]


@pytest.mark.parametrize("kind", ["link", "copy"])
def test_a_run_that_was_killed_between_keeping_and_replacing_is_gone_on_with(folder, in_place, kind):
    original = (folder / "a.png").read_bytes()
    if kind == "link":
        os.link(folder / "a.png", folder / "a.png.orig")
    else:
        (folder / "a.png.orig").write_bytes(original)
    assert in_place(folder / "a.png") == {"a.png": ("done", "")}
    assert (folder / "a.png.orig").read_bytes() == original != (folder / "a.png").read_bytes()


def test_where_there_are_no_links_it_is_a_copy(folder, in_place, monkeypatch):
    def none(*_arguments):
        raise OSError(errno.EPERM, "no such thing on FAT")

    monkeypatch.setattr(os, "link", none)
    before = content_of(folder)
    assert in_place(folder / "a.png") == {"a.png": ("done", "")}
    assert (folder / "a.png.orig").read_bytes() == before["a.png"]
    assert (folder / "a.png.orig").stat().st_mtime_ns == MOMENT


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_of_a_link_the_file_behind_it_is_kept_beside_that(folder, in_place, tmp_path):
    (tmp_path / "link.png").symlink_to(folder / "a.png")
    original = (folder / "a.png").read_bytes()
    assert in_place(tmp_path / "link.png") == {"link.png": ("done", "")}
    assert (folder / "a.png.orig").read_bytes() == original
    assert in_place(tmp_path / "link.png")["link.png"][0] == "skipped"


def test_what_cannot_be_kept_is_not_replaced(folder, in_place):
    backup, before = folder / "a.png.orig", content_of(folder)
    for fill in (Path.mkdir, Path.touch, lambda path: path.write_text("of another program")):
        fill(backup)
        for existing in ("error", "overwrite"):
            (told,) = in_place(folder / "a.png", existing=existing).values()
            assert told == ("failed", f"{backup} is where the original is to be kept")
        if backup.is_dir():
            backup.rmdir()
        else:
            backup.unlink()
    assert content_of(folder) == before
    long = folder / f"{'x' * 248}.png"
    (folder / "a.png").rename(long)
    (told,) = in_place(long).values()
    assert (told[0], "cannot write" in told[1]) == ("failed", True), "a name too long to be added to"
    assert long.read_bytes() == before["a.png"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"backup": ".orig"}, "--backup goes with --in-place"),
        ({"backup": ".", "in_place": True}, "--backup '.' cannot end a file name"),
        ({"backup": "/x", "in_place": True}, "--backup '/x' cannot end a file name"),
    ],
)
def test_what_makes_no_sense_is_refused(options, told):
    with pytest.raises(UsageError, match=told):
        Naming(**options)


@pytest.mark.parametrize(("name", "backup"), [("a.png", ".png"), ("a.tif", "f")])
def test_what_is_kept_is_not_called_as_a_picture(folder, name, backup):
    (folder / "a.png").rename(folder / name)
    with pytest.raises(UsageError, match=f"{name}{backup} would be taken for a picture"):
        plan_jobs([folder / name], Naming(in_place=True, backup=backup))


def test_a_copy_is_not_put_over_what_another_run_has_kept_meanwhile(folder, in_place, monkeypatch):
    """As where both replace one file: the second would keep the result of the first."""
    backup = folder / "a.png.orig"

    def none(*_arguments):
        raise OSError(errno.EPERM, "no such thing on FAT")

    def overtaken(job, stamp):
        backup.write_bytes(b"of another run")
        return read_again(job, stamp)

    monkeypatch.setattr(os, "link", none)
    monkeypatch.setattr("mdrn_cli.replacing.read_again", overtaken)
    in_place(folder / "a.png")
    assert backup.read_bytes() == b"of another run"


def test_a_report_takes_no_place_of_what_is_kept(folder):
    for existing in ("error", "overwrite"):
        jobs = plan_jobs([folder / "a.png"], Naming(in_place=True, backup=".json", existing=existing))
        with pytest.raises(UsageError, match="is an input or a result of this run"):
            refuse_extra(folder / "a.png.json", jobs, overwrite=True)
        (folder / "a.png.json").write_bytes((folder / "more" / "b.png").read_bytes())

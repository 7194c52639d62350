"""Broken, hostile and odd inputs: the right picture or one line that says why not, and nothing else."""

import errno
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SPACES, run_mdrn
from corpus import ANYTHING, DEEP, PIXELS, READ, REFUSED, Case, corpus, whole, write
from PIL import Image

from mdrn_cli import batch, image
from mdrn_cli.batch import run_jobs
from mdrn_cli.cli import app
from mdrn_cli.cli.boundary import run
from mdrn_cli.content import read_content
from mdrn_cli.denoisers import Denoiser, Denoisers
from mdrn_cli.encoding import SaveOptions, encode_picture
from mdrn_cli.errors import InputError, MdrnError, UsageError, lacks_memory
from mdrn_cli.files import write_atomically
from mdrn_cli.image import read_picture
from mdrn_cli.jobs import plan_jobs
from mdrn_cli.model import MDRNConfig
from mdrn_cli.naming import Job, Naming
from mdrn_cli.picture import Picture
from mdrn_cli.restore import DenoiseOptions

LINES = ("error: ", "hint: ", "warning: ")


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {case.name: case for case in corpus()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cases) -> Path:
    """The whole corpus as files, and what is no file but looks like one."""
    root = tmp_path_factory.mktemp("corpus")
    write([*cases.values()], os.fsencode(root))
    make_specials(root)
    return root


SPECIALS = {"pipe.png", "loop.png", "loop-a.jpg", "loop-b.jpg", "dangling.tif", "socket.bmp", "device.png"}


def make_specials(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (root / "loop.png").symlink_to("loop.png")
    (root / "loop-a.jpg").symlink_to("loop-b.jpg")
    (root / "loop-b.jpg").symlink_to("loop-a.jpg")
    (root / "dangling.tif").symlink_to("nowhere.tif")
    (root / "device.png").symlink_to("/dev/zero")
    (root / "folder.png").mkdir()
    (root / "folder.png" / "round").symlink_to(root)
    here = os.open(".", os.O_RDONLY)
    os.chdir(root)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.bmp")
    os.fchdir(here)
    os.close(here)


class Identity:
    """A network that leaves pictures as they are."""

    device, precision = "cpu", "float32"
    bytes_per_pixel = 1

    def __init__(self, color: str) -> None:
        self.config = MDRNConfig(color, 1, 2)

    def tile_memory(self, limit: int, pictures: int) -> float:
        return limit - pictures

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return pixels


@pytest.fixture
def _identity(monkeypatch):
    """Every picture is restored, level 50 given, by a network that changes nothing."""

    def find(self, color, sigma, noise):  # noqa: ARG001
        return Denoiser(Identity(color), sigma, sigma, "identity", None)

    monkeypatch.setattr(Denoisers, "find", find)


LEVEL = DenoiseOptions(50.0)


def planes(picture: Picture) -> np.ndarray:
    """(H, W, C), alpha last."""
    channels = picture.channels.transpose(1, 2, 0)
    return channels if picture.alpha is None else np.concatenate([channels, picture.alpha[:, :, None]], axis=2)


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


def test_the_corpus_is_large(cases):
    assert len(cases) + len(SPECIALS) >= 300


@pytest.mark.usefixtures("_identity")
def test_each_file_becomes_the_right_picture_or_an_error(tmp_path, folder, cases, monkeypatch):
    pictures: dict[str, Picture] = {}

    def read(path):
        pictures[path.name] = read_picture(path)
        return pictures[path.name]

    monkeypatch.setattr(batch, "read_picture", read)
    jobs = plan_jobs([folder], Naming(tmp_path / "out"))
    assert {job.source.name for job in jobs} == cases.keys() | SPECIALS
    wrong = {}
    for outcome in run_jobs(jobs, LEVEL):
        name = outcome.job.source.name
        problem = judged(cases.get(name), pictures.get(name), outcome)
        if problem:
            wrong[name] = problem
    assert wrong == {}


def judged(case: Case | None, picture: Picture | None, outcome: batch.Outcome) -> str | None:
    """What is wrong with an outcome, if anything."""
    if outcome.error:
        if "unexpected" in outcome.error.message:
            return outcome.error.message
        unwritable = isinstance(outcome.error, UsageError) and outcome.error.message.endswith("16383")
        if case and case.verdict == READ and not unwritable:
            return f"refused: {outcome.error.message}"
        return None
    if case is None or case.verdict == REFUSED:
        return "was to be refused"
    assert picture is not None
    if case.verdict != ANYTHING and not equal(planes(picture), case.pixels):
        return "was read wrongly"
    written = read_picture(outcome.job.target)
    lossless = outcome.job.target.suffix.lower() in (".png", ".tif") and picture.depth == written.depth
    if lossless and not equal(planes(written), planes(picture)):
        return "was written wrongly"
    return None


CARRIED = ("exif", "tag", "profile", "packet", "resolution", "text", "color")


def test_whatever_a_file_carries_can_be_written_to_any_format(cases):
    """Directories, profiles, packets and resolutions out of order, as the other formats take them."""
    for case in cases.values():
        if case.verdict == READ and case.name.startswith(CARRIED):
            picture = read_picture(case.content)
            for kind in ("PNG", "JPEG", "TIFF", "WEBP", "BMP"):
                content, warnings = encode_picture(picture, kind, SaveOptions(95, "white"))
                assert all(len(warning) < 100 for warning in warnings), case.name
                # BMP has no EXIF: what that turns is turned.
                sides = sorted(read_picture(content).channels.shape), sorted(picture.channels.shape)
                assert sides[0] == sides[1], (case.name, kind)
            encode_picture(picture, "TIFF", SaveOptions(strip_metadata=True))


def test_a_real_run_over_all_of_it(tmp_path, folder, cases, tiny_weights):
    out = tmp_path / "out"
    arguments = ["denoise", "-r", folder, "-o", out, "--sigma", 50, "--color", "color", "--flatten", "white", "--json"]
    done = run_mdrn(*arguments, "--model", tiny_weights("color"))
    assert done.returncode == 3, done.stderr[-2000:]
    assert [line for line in done.stderr.splitlines() if not line.startswith(LINES)] == []
    *objects, summary = map(json.loads, done.stdout.splitlines())
    assert {Path(about["input"]).name for about in objects} == cases.keys() | SPECIALS
    finished = {Path(about["output"]).name for about in objects if about["status"] == "done"}
    assert {path.name for path in out.iterdir()} == finished
    for about in objects:
        name = Path(about["input"]).name
        verdict = cases[name].verdict if name in cases else REFUSED
        if verdict == READ and "16383" not in str(about["error"]):
            assert about["status"] == "done", about
        if verdict == REFUSED:
            assert about["status"] == "failed", about
        assert (about["error"] is None) == (about["status"] == "done")
        assert "unexpected" not in str(about["error"])
    assert summary["failed"] == done.stderr.count("error: ")
    assert 100 < done.peak < 2_000


def command(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """The command line in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["mdrn", *map(str, arguments)])
    code = run(app)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.usefixtures("_identity")
@pytest.mark.parametrize("name", sorted(SPECIALS))
@pytest.mark.parametrize("pipe", [False, True])
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, folder, monkeypatch, capsys, name, pipe):
    arguments = ["-o", "-", "-f", "png"] if pipe else ["-o", tmp_path / "x.png"]
    code, out, err = command(monkeypatch, capsys, "denoise", folder / name, *arguments, "--sigma", 50)
    assert (code, out, err.count("error: ")) == (4, "", 1)
    assert "unexpected" not in err


@pytest.mark.usefixtures("_identity")
@pytest.mark.parametrize("verb", [["estimate"], ["compare", "{good}"], ["denoise", "--sigma", "50", "-o", "{out}"]])
@pytest.mark.parametrize(
    "bad", ["cut-00100-rgb.png", "nan.tif", "empty.webp", "loop.png", "claims-13000x13000-rgb.png"]
)
def test_every_command_tells_of_a_bad_file_in_one_line(tmp_path, folder, monkeypatch, capsys, verb, bad):
    (folder / "cut-00100-rgb.png").write_bytes(whole()["rgb.png"][0][:100])
    verb = [part.format(good=folder / "rgb.png", out=tmp_path / "x.png") for part in verb]
    code, out, err = command(monkeypatch, capsys, *verb, folder / bad)
    assert (code, out) == (4, "")
    assert [line.split(" ")[0] for line in err.splitlines()] in (["error:"], ["error:", "hint:"])


@pytest.mark.usefixtures("_identity")
@pytest.mark.parametrize("start", ["--sigma", "-o", "-dash"])
def test_names_that_look_like_options_come_after_two_dashes(tmp_path, folder, monkeypatch, capsys, start):
    monkeypatch.chdir(folder)
    arguments = ["denoise", "--sigma", 50, "-o", tmp_path / "x.png", "--", f"{start}.png"]
    assert command(monkeypatch, capsys, *arguments)[0] == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), PIXELS)


@pytest.mark.usefixtures("_identity")
def test_a_file_called_as_a_pipe_is_given_with_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS).save("-", "PNG")
    for arguments in (["estimate", "./-"], ["compare", "./-", "./-"], ["denoise", "./-", "-o", "x.png", "--sigma", 50]):
        assert command(monkeypatch, capsys, *arguments)[0] == 0
    assert command(monkeypatch, capsys, "denoise", "x.png", "-o", "./-", "-f", "png", "--sigma", 50)[0] == 2
    Path("-").unlink()
    assert command(monkeypatch, capsys, "denoise", "x.png", "-o", "./-", "-f", "png", "--sigma", 50)[0] == 0
    assert np.array_equal(np.asarray(Image.open("-")), PIXELS)


@pytest.mark.usefixtures("_identity")
def test_names_cannot_act_on_the_terminal(tmp_path, folder, monkeypatch, capsys):
    names = sorted(p.name for p in folder.glob("*.png") if not p.name.isprintable())
    assert len(names) > 5
    for name in names:
        for verb in (["denoise", "--dry-run"], ["denoise", "--sigma", 50, "-o", tmp_path / "x.png", "--overwrite"]):
            code, out, err = command(monkeypatch, capsys, *verb, folder / name)
            assert code == 0, err
            assert re.sub(SPACES, " ", out + err).replace("\n", "").isprintable()
            assert (out + err).count("\n") == 1
    (folder / ":warning:[red].png").write_bytes(b"")
    assert ":warning:[red].png" in command(monkeypatch, capsys, "estimate", folder / ":warning:[red].png")[2]
    (folder / ":warning:[red].png").unlink()


@pytest.mark.usefixtures("_identity")
@pytest.mark.parametrize("letter", ["n", "\U0001f600"])
def test_a_name_as_long_as_can_be(tmp_path, letter):
    """What is beside it while it is written fits, too; a result whose name would not fit is an error of its own."""
    longest = letter * (251 // len(letter.encode())) + ".png"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / longest).write_bytes(whole()["rgb.png"][0])
    (tmp_path / "in" / "short.png").write_bytes(whole()["rgb.png"][0])
    for naming, expected in ((Naming(tmp_path / "out"), ["done", "done"]), (Naming(), ["failed", "done"])):
        outcomes = {o.job.source.name: o for o in run_jobs(plan_jobs([tmp_path / "in"], naming), LEVEL)}
        assert [outcomes[name].status for name in (longest, "short.png")] == expected
    assert "too long" in outcomes[longest].error.message
    with pytest.raises(MdrnError, match="too long"):
        write_atomically(tmp_path / ("n" * 256), b"")


@pytest.mark.usefixtures("_identity")
def test_a_path_longer_than_the_system_takes(tmp_path, monkeypatch, capsys):
    here = os.open(".", os.O_RDONLY)
    os.chdir(tmp_path)
    (tmp_path / "good.png").write_bytes(whole()["rgb.png"][0])
    for _ in range(20):
        Path("d" * 250).mkdir()
        os.chdir("d" * 250)
    Path("deep.png").write_bytes(whole()["rgb.png"][0])
    os.fchdir(here)
    os.close(here)
    arguments = ["denoise", "-r", tmp_path, "-o", tmp_path / "out", "--sigma", 50]
    code, _, err = command(monkeypatch, capsys, *arguments)
    assert (code, err.count("error: ")) == (3, 1)
    assert "too long" in err
    assert (tmp_path / "out" / "good.png").is_file()
    for path in (tmp_path / ("x" * 300 + ".png"), tmp_path / "/".join(["y" * 200] * 30) / "z.png"):
        code, _, err = command(monkeypatch, capsys, "denoise", path, "--sigma", 50)
        assert (code, err.count("error: ")) == (4, 1)


def write_locked(folder: Path) -> None:
    """An image that may be read, one that may not, and folders that may not be listed, or listed but not entered."""
    good = whole()["rgb.png"][0]
    for place in ("", "closed", "listed"):
        (folder / place).mkdir(exist_ok=True)
        for name in ("good.png", "locked.png"):
            (folder / place / name).write_bytes(good)
    (folder / "locked.png").chmod(0)
    (folder / "closed").chmod(0)
    (folder / "listed").chmod(0o744)


@pytest.mark.usefixtures("_identity")
def test_files_and_folders_that_may_not_be_read(tmp_path, monkeypatch, capsys, request):
    write_locked(tmp_path)
    command(monkeypatch, capsys, "denoise", tmp_path / "good.png", "--dry-run")
    request.getfixturevalue("_unprivileged")
    try:
        for name in ("locked.png", "closed/good.png", "listed/good.png"):
            code, _, err = command(monkeypatch, capsys, "denoise", name, "-o", "x.png", "--sigma", 50)
            assert (code, err.count("error: ")) == (4, 1), err
            assert "Permission denied" in err
        code, _, err = command(monkeypatch, capsys, "denoise", "-r", ".", "-o", "out", "--sigma", 50)
        assert code == 3
        assert err.count("error: ") == 4
        assert "cannot list closed" in err
        assert [path.name for path in Path("out").iterdir()] == ["good.png"]
        code, _, err = command(monkeypatch, capsys, "denoise", "closed", "-o", "out2", "--sigma", 50)
        assert (code, err.count("error: ")) == (4, 1), err
    finally:
        if not os.getuid():
            os.seteuid(0)
        (tmp_path / "closed").chmod(0o700)
        (tmp_path / "listed").chmod(0o700)


def test_an_endless_pipe_ends(tmp_path, monkeypatch):
    with Path("/dev/zero").open("rb") as zeros, pytest.raises(InputError, match="not an image"):
        read_content(zeros, "the input")
    monkeypatch.setattr("mdrn_cli.content.LARGEST_CONTENT", 1000)
    with pytest.raises(InputError, match="larger than 1000"):
        read_content(io.BytesIO(b"BM" + bytes(2000)), "the input")
    (tmp_path / "a.png").write_bytes(b"BM" + bytes(998))
    with (tmp_path / "a.png").open("rb") as file:
        assert len(read_content(file, "a.png")) == 1000


def test_a_pipe_is_not_given_more_memory_than_it_fills():
    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert 0 < size <= 1 << 20
            return super().read(size)

    content = b"BM" + bytes(3 << 20)
    assert read_content(Pipe(content), "the input") == content


def test_a_process_fed_without_end_stops(tiny_weights):
    arguments = ["denoise", "-", "-o", "-", "-f", "png", "--sigma", "50", "--model", str(tiny_weights("color"))]
    with Path("/dev/zero").open("rb") as zeros:
        done = subprocess.run(
            [sys.executable, "-m", "mdrn_cli", *arguments], stdin=zeros, capture_output=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"not an image" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),  # on Windows
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_is_not_there_is_told_with_its_exit_code(tmp_path, monkeypatch, capsys, error):
    def full(_source):
        raise error

    (tmp_path / "a.png").write_bytes(whole()["rgb.png"][0])
    monkeypatch.setattr(batch, "read_picture", full)
    code, _, err = command(monkeypatch, capsys, "denoise", tmp_path / "a.png")
    assert code == 6
    assert "not enough memory for" in err
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "Cannot allocate memory.png")
    assert not lacks_memory(missing)
    monkeypatch.setattr(image, "read_picture", full)
    assert command(monkeypatch, capsys, "estimate", tmp_path / "a.png")[0] == 6
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    for name in ("denoise", "estimate"):
        code, _, err = command(monkeypatch, capsys, name, tmp_path / "a.png", tmp_path / "b.png")
        assert (code, err.count("not enough memory for")) == (6, 2), name


def test_what_nobody_has_foreseen_of_a_file_does_not_keep_others_from_being_estimated(tmp_path, monkeypatch, capsys):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(whole()["rgb.png"][0])
    read = iter((ZeroDivisionError("odd"), read_picture(tmp_path / "b.png")))

    def broken(_source):
        given = next(read)
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr(image, "read_picture", broken)
    code, out, err = command(monkeypatch, capsys, "estimate", tmp_path / "a.png", tmp_path / "b.png")
    assert code == 3
    assert out.count("\n") == 1
    assert "a.png: unexpected ZeroDivisionError: odd" in err


def test_bigtiff_keeps_what_it_carries(tmp_path):
    import pyvips

    pixels = pyvips.Image.new_from_array(DEEP).copy(interpretation="rgb16").copy()
    pixels.set_type(pyvips.GValue.blob_type, "xmp-data", b"<x:xmpmeta/>")
    pixels.write_to_file(str(tmp_path / "a.tif"), bigtiff=True, xres=10, yres=10)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.metadata.xmp == b"<x:xmpmeta/>"
    assert picture.metadata.dpi == pytest.approx((254, 254))
    content, warnings = encode_picture(picture, "JPEG")
    assert warnings == ("16 bits a channel become 8",)
    assert read_picture(content).metadata.xmp == b"<x:xmpmeta/>"


def test_a_jpeg_that_ends_early_is_damaged_even_with_its_end_marker():
    """Pillow would fill up with gray."""
    content = encode_picture(Picture(np.random.default_rng(0).random((3, 200, 200), np.float32)), "JPEG")[0]
    assert read_picture(content).channels.shape == (3, 200, 200)
    with pytest.raises(InputError, match="damaged"):
        read_picture(content[: len(content) // 2] + b"\xff\xd9")
    spaced = content[:-2] + bytes(20) + content[-2:]
    assert np.array_equal(read_picture(spaced).channels, read_picture(content).channels)


def test_exif_that_cannot_be_carried_over_is_named(cases):
    picture = read_picture(cases["exif-noise.jpg"].content)
    assert picture.warnings == ("the EXIF is damaged and left out",)
    turned = read_picture(cases["exif-turned-text.jpg"].content)
    assert turned.metadata.orientation == 1
    assert encode_picture(turned, "TIFF")[1] == ("TIFF cannot hold the input's EXIF tag 274",)
    assert encode_picture(turned, "JPEG")[1] == ()


def test_a_job_known_to_be_impossible_is_a_failure_and_stops_a_run_that_fails_fast(tmp_path):
    jobs = [Job(tmp_path / "a.png", tmp_path / "b.png"), Job(tmp_path, tmp_path, problem=InputError("no"))]
    assert [o.status for o in run_jobs(jobs, LEVEL)] == ["failed", "failed"]
    assert [o.job for o in run_jobs(jobs, LEVEL, fail_fast=True)] == [jobs[1]]

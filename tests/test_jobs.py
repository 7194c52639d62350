"""What a run is to do, decided before anything is: what is an input, what a result, where it goes."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run_mdrn
from PIL import Image

from mdrn_cli.collisions import refuse_extra
from mdrn_cli.errors import InputError, UsageError
from mdrn_cli.formats import find_images
from mdrn_cli.jobs import plan_jobs
from mdrn_cli.naming import Job, Naming
from mdrn_cli.places import Places
from mdrn_cli.replacing import appeared


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with two images, one of them in capitals."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "B.JPG"):
        Image.new("RGB", (40, 24), "gray").save(tmp_path / name)
    return tmp_path


def planned(*inputs: str, **naming: object) -> list[str]:
    """Targets of the jobs that would be done."""
    jobs = plan_jobs([Path(name) for name in inputs], Naming(**naming))
    return [str(job.target) for job in jobs if not job.skip and not job.problem]


@pytest.mark.parametrize("spelled", ["restored", "./restored", "{here}/restored", "../{name}/restored"])
def test_results_in_a_folder_within_are_not_denoised_again_however_it_is_spelled(folder, spelled):
    output = Path(spelled.format(here=folder, name=folder.name))
    (folder / "restored").mkdir()
    (folder / "restored" / "a.jpg").write_bytes((folder / "a.jpg").read_bytes())
    for inputs in (".", str(folder)):
        assert planned(inputs, output=output, recursive=True) == [str(output / "B.JPG")]


def test_nor_are_they_through_a_link(folder):
    (folder / "restored").mkdir()
    (folder / "restored" / "old.jpg").touch()
    (folder / "link").symlink_to("restored")
    assert planned(".", output=Path("link"), recursive=True) == ["link/B.JPG", "link/a.jpg"]


def test_a_folder_is_mirrored_into_one_above_it(folder):
    (folder / "raw").mkdir()
    (folder / "raw" / "new.jpg").touch()
    assert planned("raw", output=folder) == [str(folder / "new.jpg")]


def test_results_do_not_go_into_the_folder_of_their_inputs(folder):
    with pytest.raises(UsageError, match="would replace the inputs"):
        planned(".", output=folder, existing="overwrite")
    assert planned(".", output=folder, suffix=".png") == [str(folder / "B.png"), str(folder / "a.png")]


def test_results_named_in_a_list_are_skipped_and_it_is_said_why(folder):
    for name in ("a_mdrn.jpg", "B_mdrn.JPG", "a_mdrn_mdrn.jpg"):
        (folder / name).write_bytes(b"a result")
    named = [Path(name) for name in ("B.JPG", "B_mdrn.JPG", "a.jpg", str(folder / "a_mdrn.jpg"), "a_mdrn_mdrn.jpg")]
    jobs = plan_jobs(named, Naming(existing="skip"))
    assert [job.skip for job in jobs] == [
        "B_mdrn.JPG exists already",
        "it is the result of B.JPG",
        "a_mdrn.jpg exists already",
        "it is the result of a.jpg",
        f"it is the result of {folder}/a_mdrn.jpg",
    ]
    assert planned(*map(str, named), existing="overwrite") == ["B_mdrn.JPG", "a_mdrn.jpg"]


def test_a_result_named_alone_or_for_another_folder_is_denoised(folder):
    (folder / "a_mdrn.jpg").touch()
    assert planned("a_mdrn.jpg") == ["a_mdrn_mdrn.jpg"]
    assert planned("a.jpg", "a_mdrn.jpg", output=Path("out")) == ["out/a.jpg", "out/a_mdrn.jpg"]
    assert planned("a.jpg", "a_mdrn.jpg", in_place=True) == ["a.jpg", "a_mdrn.jpg"]


def test_in_place_the_results_in_a_folder_are_not_denoised_again(folder):
    (folder / "a_mdrn.jpg").touch()
    assert planned(".", in_place=True) == ["B.JPG", "a.jpg"]


def test_results_of_names_in_capitals_are_not_inputs_of_the_next_run(folder):
    for name in ("a_mdrn.jpg", "B_mdrn.JPG"):
        (folder / name).touch()
    assert [job.source.name for job in plan_jobs([folder], Naming())] == ["B.JPG", "a.jpg"]


def test_an_output_without_suffix_is_a_folder(folder):
    assert planned("a.jpg", output=Path("out")) == ["out/a.jpg"]
    assert planned("a.jpg", output=Path("out.d"), folder=True) == ["out.d/a.jpg"]
    assert planned("a.jpg", output=Path("out"), suffix=".png", folder=True) == ["out/a.png"]
    (folder / "out").touch()
    with pytest.raises(UsageError, match="out is a file, not a folder") as caught:
        planned("a.jpg", output=Path("out"))
    assert "--format" in caught.value.hint


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("output", ["out", "out/", "out.d/"])
def test_a_pattern_that_matches_one_file_goes_into_the_folder(output):
    done = run_mdrn("denoise", "a.jpg", "-o", output, "--dry-run")
    assert done.stdout == f"a.jpg -> {output.strip('/')}/a.jpg\n"


@pytest.mark.usefixtures("folder")
def test_a_folder_may_be_called_as_a_picture_if_that_is_meant(folder):
    several = ["a.jpg", "B.JPG"]
    assert planned(*several, output=Path("out.png"), folder=True) == ["out.png/a.jpg", "out.png/B.JPG"]
    (folder / "there.png").mkdir()
    assert planned(*several, output=Path("there.png")) == ["there.png/a.jpg", "there.png/B.JPG"]


@pytest.mark.usefixtures("folder")
def test_with_a_format_an_output_without_suffix_is_a_file(folder):
    (job,) = plan_jobs([Path("a.jpg")], Naming(Path("out"), suffix=".png"))
    assert (str(job.target), job.kind) == ("out", "PNG")
    (job,) = plan_jobs([Path("a.jpg")], Naming(Path("out.v2"), suffix=".png"))
    assert (str(job.target), job.kind) == ("out.v2", "PNG")
    assert plan_jobs([Path("a.jpg")], Naming(Path("o.jpeg"), suffix=".jpg"))[0].kind == "JPEG"
    (folder / "link.png").symlink_to("a.jpg")
    for naming in (Naming(Path("o.jpg"), suffix=".png"), Naming(Path("link.png"), suffix=".png", existing="overwrite")):
        with pytest.raises(UsageError, match="--format png is not the format of"):
            plan_jobs([Path("B.JPG")], naming)


def test_the_format_is_that_of_the_file_behind_a_link(folder):
    (folder / "store").mkdir()
    (folder / "store" / "0123").write_bytes((folder / "a.jpg").read_bytes())
    for name, target, kind in (
        ("1.png", "a.jpg", "JPEG"),
        ("2.png", "store/0123", "PNG"),
        ("3.png", "none.jpg", "JPEG"),
    ):
        (folder / name).symlink_to(target)
        (job,) = plan_jobs([Path("B.JPG")], Naming(Path(name), existing="overwrite"))
        assert job.kind == kind
    (job,) = plan_jobs([Path("1.png")], Naming(in_place=True))
    assert (job.kind, job.target) == ("JPEG", Path("1.png"))


def test_an_input_without_images_is_a_problem_of_its_own(folder):
    (folder / "empty" / "deeper").mkdir(parents=True)
    (folder / "broken.png").symlink_to("nowhere.png")
    inputs = [Path(name) for name in ("empty", "a.jpg", "none.png", "none.png", "broken.png", "a.jpg/b.png")]
    jobs = plan_jobs(inputs, Naming())
    assert [type(job.problem) for job in jobs] == [InputError, type(None), *[InputError] * 3]
    assert jobs[0].problem
    assert "--recursive" in jobs[0].problem.hint
    assert not plan_jobs([Path("empty")], Naming(recursive=True))[0].problem.hint
    (folder / "empty" / "deeper").rename(folder / "empty" / ".hidden")
    (folder / "empty" / "link").symlink_to(folder)
    assert not plan_jobs([Path("empty")], Naming())[0].problem.hint, "no folder that would be searched"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["denoise", "", "--in-place"], "an argument is"),
        (["denoise", "--in-place", "--", ""], "the argument after -- is"),
        (["denoise", "a.jpg", "-o", ""], "the argument after -o is"),
        (["denoise", "a.jpg", "--report="], "--report is"),
        (["train", "--data", ""], "the argument after --data is"),
        (["bench", ""], "an argument is"),
    ],
)
def test_an_empty_path_is_refused(folder, arguments, named):
    """As of a variable that a script has left unset; it would be the current folder."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = run_mdrn(*arguments, cwd=folder)
    assert (done.returncode, f"error: {named} empty" in done.stderr) == (2, True), done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("folder")
def test_an_image_given_more_than_once_is_denoised_once():
    assert planned("a.jpg", "./a.jpg", ".", output=Path("out")) == ["out/a.jpg", "out/B.JPG"]
    assert planned("B.JPG", "a.jpg", f"../{Path.cwd().name}/B.JPG", output=Path("out")) == ["out/B.JPG", "out/a.jpg"]
    assert planned("a.jpg", "a.jpg", output=Path("b.jpg")) == ["b.jpg"], "one input goes to a name"


@pytest.mark.usefixtures("folder")
def test_a_folder_does_not_go_to_stdout():
    with pytest.raises(UsageError, match="is a folder, and stdout takes one image"):
        plan_jobs([Path()], Naming(Path("-"), suffix=".png"))
    for inputs, output in ((["a.jpg", "b.png"], "-"), (["-", "a.jpg"], "out")):
        with pytest.raises(UsageError, match="is one picture, and there are 2 inputs"):
            plan_jobs([Path(name) for name in inputs], Naming(Path(output), suffix=".png"))
    with pytest.raises(UsageError, match="needs --output"):
        plan_jobs([Path("-")], Naming())


def test_pictures_of_other_formats_are_told_of(folder):
    for name in ("c.heic", "d.HEIC", "e.gif", "notes.txt", ".hidden.gif", "old.jfif"):
        (folder / name).touch()
    done = run_mdrn("denoise", ".", "-o", "out", "--dry-run")
    assert done.returncode == 0
    assert done.stderr == "warning: formats that are not handled were passed over: 1 .gif, 2 .heic\n"
    assert f"old.jfif -> {Path('out', 'old.jfif')}" in done.stdout
    assert "passed over" not in run_mdrn("denoise", "a.jpg", "-o", "out/", "--dry-run").stderr
    alone = run_mdrn("denoise", "e.gif")
    assert alone.returncode == 4
    assert alone.stderr.startswith("error: GIF is not handled: 'e.gif'\nhint: handled are .bmp, ")


@pytest.mark.parametrize("command", ["denoise", "estimate"])
def test_links_to_folders_that_are_not_followed_are_told_of(folder, tmp_path, command):
    (folder / "link").symlink_to(tmp_path)
    told = "warning: links to folders are not followed: link"
    assert told in run_mdrn(command, "-r", ".", *["--dry-run"] * (command == "denoise")).stderr.splitlines()
    assert told not in run_mdrn(command, ".", *["--dry-run"] * (command == "denoise")).stderr


def test_a_link_to_nothing_is_foreseen_to_fail(folder):
    (folder / "broken.jpg").symlink_to("nowhere")
    done = run_mdrn("denoise", ".", "-o", "out", "--dry-run")
    assert done.returncode == 3
    assert "error: no file or folder broken.jpg" in done.stderr.splitlines()
    (folder / "out").mkdir()
    (folder / "out" / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes())
    assert [job.skip for job in plan_jobs([Path()], Naming(output=Path("out"))) if job.source.name == "broken.jpg"] == [
        f"{Path('out', 'broken.jpg')} exists already"
    ]


def test_in_place_a_file_is_replaced_once_whatever_links_lead_to_it(folder):
    for link, target in (("0.jpg", "a.jpg"), ("z.jpg", "a.jpg"), ("twice.jpg", "0.jpg")):
        (folder / link).symlink_to(target)
    (folder / "B.JPG").unlink()
    jobs = plan_jobs([Path()], Naming(in_place=True))
    told = {job.source.name: job.skip for job in jobs}
    links = dict.fromkeys(("0.jpg", "twice.jpg", "z.jpg"), "it is the file a.jpg")
    assert told == {**links, "a.jpg": ""}
    assert all(job.target == job.source for job in jobs)
    (folder / "same").symlink_to(".")
    assert planned("same/a.jpg", "a.jpg", "z.jpg", in_place=True) == ["same/a.jpg"]
    done = run_mdrn("denoise", ".", "--in-place", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.jpg: skipped, it is the file a.jpg\n" in done.stdout
    assert len(planned(".", output=Path("out"))) == 4, "elsewhere each has a result of its own"


def test_in_place_of_links_to_one_file_elsewhere_the_first_is_done(folder):
    (folder / "links").mkdir()
    for link in ("1.jpg", "2.jpg"):
        (folder / "links" / link).symlink_to("../a.jpg")
    jobs = plan_jobs([Path("links")], Naming(in_place=True))
    assert [(str(job.source), job.skip) for job in jobs] == [
        ("links/1.jpg", ""),
        ("links/2.jpg", "it is the file links/1.jpg"),
    ]
    assert planned("links", "B.JPG", in_place=True) == ["links/1.jpg", "B.JPG"]
    (folder / "broken.jpg").symlink_to("none.jpg")
    first, second = plan_jobs([Path("broken.jpg"), Path("a.jpg")], Naming(in_place=True))
    assert (type(first.problem), second.skip) == (InputError, "")


@pytest.mark.parametrize("empty", [False, True])
def test_a_link_that_lies_where_a_result_goes_is_not_followed_unasked(folder, tmp_path, empty):
    """Whoever has made the folder could have keys written into the home of whoever denoises it."""
    elsewhere = tmp_path / "authorized_keys"
    if empty:
        elsewhere.touch()
    (folder / "a_mdrn.jpg").symlink_to(elsewhere)
    jobs = {job.source.name: job for job in plan_jobs([Path()], Naming())}
    assert "is a link" in str(jobs["a.jpg"].problem)
    refused = pytest.raises(UsageError, match="exists already" if empty else "leads nowhere")
    with refused:
        plan_jobs([Path("a.jpg")], Naming())
    with refused:
        plan_jobs([Path("B.JPG")], Naming(output=Path("a_mdrn.jpg")))
    job = Job(Path("a.jpg"), Path("a_mdrn.jpg"), existing="skip")
    outcome = appeared(job)
    assert outcome is not None, "laid since the plan was made"
    assert "is a link" in str(outcome.error)
    assert planned("a.jpg", existing="overwrite") == ["a_mdrn.jpg"]
    elsewhere.write_bytes(b"a result")
    (skip,) = (job.skip for job in plan_jobs([Path()], Naming()) if job.source.name == "a.jpg")
    assert "exists already" in skip


@pytest.fixture
def deep(tmp_path):
    """A file in folders within one another, deeper than Python's stack is allowed to become."""
    depth = 300
    folders = [tmp_path / "/".join("d" * k) for k in range(1, depth)]
    for folder in folders:
        folder.mkdir()
    (folders[-1] / "a.png").touch()
    yield folders[-1] / "a.png"
    (folders[-1] / "a.png").unlink()
    for folder in reversed(folders):
        folder.rmdir()


def test_folders_deeper_than_python_s_stack_are_searched(tmp_path, deep, request):
    limit = sys.getrecursionlimit()
    request.addfinalizer(lambda: sys.setrecursionlimit(limit))
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    (found,) = find_images(tmp_path)
    assert found == deep
    places = Places()
    assert places.of(found) == places.of(found)
    assert places.folder(Path("/none", *["x"] * 500)) != places.folder(Path("/none", *["x"] * 499))
    (job,) = plan_jobs([tmp_path], Naming(recursive=True, output=tmp_path / "out"))
    assert job.source == found


@pytest.fixture
def twice(folder):
    """A folder that has two names, as it has on file systems that make no difference between upper and lower case."""
    (folder / "Photos").mkdir()
    (folder / "a.jpg").rename(folder / "Photos" / "a.jpg")
    (folder / "photos").mkdir()
    mounted = subprocess.run(
        ["mount", "--bind", folder / "Photos", folder / "photos"], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount folders")
    yield folder
    subprocess.run(["umount", folder / "photos"], check=True)


def test_one_folder_under_two_names_is_known(twice):
    with pytest.raises(UsageError, match="would replace the inputs"):
        planned("Photos", output=Path("photos"), recursive=True, existing="overwrite")
    with pytest.raises(UsageError, match="would replace the input"):
        planned("Photos/a.jpg", output=Path("photos/a.jpg"), existing="overwrite")
    assert planned("Photos/a.jpg", "photos/a.jpg", in_place=True) == ["Photos/a.jpg"]
    (twice / "Photos" / "out").mkdir()
    (twice / "Photos" / "out" / "a.jpg").touch()
    assert planned("Photos", output=Path("photos/out"), recursive=True, existing="overwrite") == ["photos/out/a.jpg"]
    jobs = plan_jobs([Path("Photos/a.jpg")], Naming(Path("out.jpg")))
    with pytest.raises(UsageError, match="is an input or a result"):
        refuse_extra(Path("photos/a.jpg"), jobs, True)


def test_names_that_differ_in_case_alone_are_one_where_the_file_system_says_so(folder, monkeypatch):
    for name in ("A.jpg", "a.png"):
        Image.new("RGB", (40, 24)).save(folder / name)
    assert planned("A.jpg", "a.png", output=Path("out"), suffix=".png") == ["out/A.png", "out/a.png"]
    monkeypatch.setattr(Places, "_ignores_case", lambda *_: True)
    with pytest.raises(UsageError, match="would both be written to"):
        planned("A.jpg", "a.png", output=Path("out"), suffix=".png")
    # Accents are one character or two.
    assert Places().of(folder / "caf\u00e9.png") == Places().of(folder / "CAFE\u0301.png")


def test_a_folder_tells_whether_case_matters(folder):
    inside = folder / "Photos" / "12"
    inside.mkdir(parents=True)
    assert Places().of(inside / "a.png") != Places().of(inside / "A.png")
    (folder / "pHOTOS").symlink_to("Photos")
    assert Places().of(inside / "a.png") == Places().of(inside / "A.png"), "the other spelling is the same folder"
    assert Places().of(folder / "none" / "a.png") != Places().of(folder / "none" / "b.png")


def test_what_is_above_a_link_is_of_where_it_leads(folder):
    (folder / "other" / "deep").mkdir(parents=True)
    Image.new("RGB", (40, 24)).save(folder / "other" / "a.jpg")
    (folder / "link").symlink_to("other/deep")
    assert planned("a.jpg", "link/../a.jpg", "./B.JPG", "other/../B.JPG") == [
        "a_mdrn.jpg",
        "link/../a_mdrn.jpg",
        "B_mdrn.JPG",
    ]

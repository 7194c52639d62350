"""One input of a run: where its result goes, in which format, and what stands against that."""

from __future__ import annotations

import filecmp
from dataclasses import dataclass
from pathlib import Path

from mdrn_cli.content import kind_of_file
from mdrn_cli.encoding import format_of
from mdrn_cli.errors import InputError, MdrnError, UsageError
from mdrn_cli.formats import FORMATS
from mdrn_cli.paths import (
    UNPROTECT,
    behind_link,
    exists,
    is_file,
    is_link,
    is_write_protected,
    refuse_existing,
    size_of,
)

OUTPUT_SUFFIX = "_mdrn"
REPLACE_OR_KEEP = "use --overwrite to replace it, --skip-existing to keep it"


@dataclass(frozen=True)
class Naming:
    """Where results go.

    Args:
        output: file or folder, or `-`; None puts each result beside its input, `_mdrn` added to the name.
        in_place: replace the inputs.
        suffix: such as ".png"; None keeps the input's.
        existing: what to do where a result exists already: "error", "skip" or "overwrite".
        recursive: whether folders are searched at any depth.
        folder: whether `output` is a folder, also where none of that name exists.
        backup: with what added to its name each input that is replaced is kept, such as ".orig"; empty for not at all.

    Raises:
        UsageError: two of these make no sense together, or one none at all.
    """

    output: Path | None = None
    in_place: bool = False
    suffix: str | None = None
    existing: str = "error"
    recursive: bool = False
    folder: bool = False
    backup: str = ""

    def __post_init__(self) -> None:
        if self.backup and not self.in_place:
            raise UsageError("--backup goes with --in-place", "leave it out: no input is replaced")
        if {"/", "\\", "\0", ":"} & {*self.backup} or self.backup.endswith((".", " ")):
            raise UsageError(f"--backup {self.backup!r} cannot end a file name", "give one such as .orig")
        if self.in_place and (self.output or self.suffix):
            raise UsageError("--in-place excludes --output and --format")
        if self.in_place and self.existing == "skip":
            raise UsageError("--in-place replaces what --skip-existing would leave", "leave one of them out")
        if self.suffix and self.suffix not in FORMATS:
            raise UsageError(f"no format {self.suffix[1:]!r}", f"formats are: {', '.join(sorted(FORMATS))}")

    @property
    def beside(self) -> bool:
        """Whether results lie beside their inputs, under names of their own."""
        return self.output is None and not self.in_place


@dataclass(frozen=True)
class Job:
    """One input and where its result goes.

    Attributes:
        source: the input; `-` is standard input.
        target: where its result goes; `-` is standard output.
        skip: why there is nothing to do; empty where there is.
        existing: what to do where the result has come to exist by the time it would be written: see Naming.
        problem: why nothing can come of it, where that is known beforehand; there is no target then.
        kind: format of the result as Pillow names it; empty where there is nothing to write.
        is_sparing: whether it fails where the input is to be replaced and holds pictures or layers that its result
            would not.
        backup: where the input is kept that is replaced; None for nowhere.
    """

    source: Path
    target: Path
    skip: str = ""
    existing: str = "overwrite"
    problem: MdrnError | None = None
    kind: str = ""
    is_sparing: bool = False
    backup: Path | None = None


def plan_named(source: Path, name: str, naming: Naming, into_folder: bool, existing: str) -> Job:
    """The job of a file; `name` is its path below the output folder."""
    if naming.in_place and is_write_protected(source):
        return hopeless(source, InputError(f"{source} is write-protected", UNPROTECT))
    if naming.in_place:
        return _plan_in_place(source, naming)
    if naming.output is not None and not into_folder:
        return plan_file(source, naming.output, naming.suffix, existing)
    beside = source.with_name(f"{source.stem}{OUTPUT_SUFFIX}{source.suffix}")
    target = beside if naming.output is None else naming.output / name
    return plan_file(source, target.with_suffix(naming.suffix or target.suffix), naming.suffix, existing)


def _plan_in_place(source: Path, naming: Naming) -> Job:
    """The job of a file that is replaced: none where it is kept already as it was, for its result has taken its place.
    A kill may come between the two; then both are the same.

    Raises:
        UsageError: what is kept would be taken for a picture by its name.
    """
    kind, is_sparing = kind_of_result(source, None), naming.existing != "overwrite"
    original = behind_link(source)
    backup = original.with_name(original.name + naming.backup) if naming.backup else None
    if backup and backup.suffix.lower() in FORMATS:
        raise UsageError(f"{backup.name} would be taken for a picture", "give a --backup such as .orig")
    if backup and (exists(backup) or is_link(backup)):
        try:
            if is_link(backup) or not is_file(backup) or kind_of_file(backup) != kind_of_file(source):
                return hopeless(source, MdrnError(f"{backup} is where the original is to be kept", "move it away"))
            is_same = filecmp.cmp(backup, source, shallow=False)
        except InputError as error:
            return hopeless(source, error)
        except OSError as error:
            return hopeless(source, InputError(f"cannot read {backup} or {source} ({error.strerror or error})"))
        if is_sparing and not is_same:
            return Job(source, source, f"its original is kept as {backup} already", kind=kind, backup=backup)
    return Job(source, source, kind=kind, is_sparing=is_sparing, backup=backup)


def plan_file(source: Path, target: Path, suffix: str | None, existing: str) -> Job:
    """The job of a file, the place of whose result is known; `suffix` and `existing` as `Naming` has them.

    Raises:
        UsageError: there is something at that place which is not to be replaced, or no format.
    """
    kind = kind_of_result(target, suffix)
    if existing == "skip" and is_result(target):
        return Job(source, target, kept(target), existing, kind=kind)
    if existing == "skip" and exists(target) and not is_file(target):
        return hopeless(source, MdrnError(f"{target} exists already and is not a file", "move it away"))
    try:
        refuse_present(target, existing)
    except UsageError as error:
        if existing != "skip":
            raise
        return hopeless(source, MdrnError(error.message, error.hint))
    return Job(source, target, existing=existing, kind=kind)


def kind_of_result(target: Path, suffix: str | None) -> str:
    """The format of a result: what the name of the file says that is replaced or made, else what is asked for."""
    replaced = behind_link(target)
    named = FORMATS.get(replaced.suffix.lower()) or FORMATS.get(target.suffix.lower())
    if suffix is None:
        return named or format_of(target)
    if named not in (None, FORMATS[suffix]):
        raise UsageError(
            f"--format {suffix[1:]} is not the format of {replaced}", "leave --format out, or change the suffix"
        )
    return FORMATS[suffix]


def hopeless(source: Path, problem: MdrnError) -> Job:
    """The job of an input that has no images, so that it is told of with the failures."""
    return Job(source, source, problem=problem)


def missing(source: Path) -> Job:
    """The job of an input that is not there."""
    return hopeless(source, InputError(f"no file or folder {source}"))


def is_missing(source: Path) -> bool:
    """Whether there is nothing of that name; what cannot be told is left to be found when it is read."""
    try:
        source.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def refuse_present(target: Path, existing: str) -> None:
    """Refuse what stands where a result is to go, which is none itself.

    Raises:
        UsageError: nothing is to be replaced, or it cannot be; or it is a link, to nothing or to an empty file, which
            whoever made the folder may have laid to have something written elsewhere: it is followed only if asked.
    """
    if existing == "skip" and is_link(target):
        raise UsageError(f"{target} is a link with no result behind it", "remove it, or follow it by --overwrite")
    refuse_existing(target, existing != "error", REPLACE_OR_KEEP)


def is_result(target: Path) -> bool:
    """Whether there is a file of that name with something in it: an empty one, as a full disk leaves, is none."""
    return size_of(target) > 0


def kept(target: Path) -> str:
    """Why a job is skipped whose result there is."""
    return f"{target} exists already"

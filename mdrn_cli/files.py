"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mdrn_cli.errors import InputError, MdrnError, OutOfMemoryError, lacks_memory
from mdrn_cli.paths import behind_link

LEFTOVER_AGE = 600.0
"""Seconds after which a partial file that nobody has touched is taken for one that a kill has left."""
_READ_BY_ALL = stat.S_IRGRP | stat.S_IROTH
_PARTIAL = ".mdrn-{}.part"
_IN_USE, _PATIENCE = (5, 32, 33), 2.0
"""Windows errors for files that others have open, and seconds for which writing is tried again."""
_ACL = "system.posix_acl_access"  # rights of further users and groups, on Linux
_HINTS = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, then run it again") | dict.fromkeys(
    (errno.EROFS, errno.EACCES, errno.EPERM), "choose a folder that can be written to"
)


def write_atomically(
    path: Path, data: bytes, check: Callable[[], None] | None = None, like: Sequence[Path] = ()
) -> None:
    """Replace `path`, of a link the file behind it, by `data` in one step that survives a crash at any moment; what is
    replaced keeps its permissions and the attributes that its user has given it.

    A kill may leave a partial file beside it, hidden and with a suffix of its own; see `remove_leftovers`.

    Args:
        path: the file.
        data: its content.
        check: called once all is written, which may take long; what it raises leaves `path` as before.
        like: files that a new one is made of, and is not to be read by more users than.

    Raises:
        MdrnError: the folder cannot be written; `path` is as before.
    """
    write_together(((path, data),), check, like)


def write_together(
    files: Sequence[tuple[Path, bytes]], check: Callable[[], None] | None = None, like: Sequence[Path] = ()
) -> None:
    """`write_atomically` of files that belong together: all are written before the first is put in place.

    Raises:
        MdrnError: one cannot be written; all are as before, but where they could be written and not be put in place.
    """
    with ExitStack() as leftovers:
        ready = []
        for path, data in ((behind_link(path), data) for path, data in files):
            # A random name: process numbers repeat among containers that share a folder.
            partial = path.with_name(_PARTIAL.format(secrets.token_hex(8)))
            leftovers.callback(_remove, partial)
            with telling_write_errors(path):
                _write(partial, path, data, like)
            ready.append((partial, path))
        if check:
            check()
        for partial, path in ready:
            with telling_write_errors(path):
                put_in_place(partial, path)


def _remove(partial: Path) -> None:
    """Where it is there, and can be: a folder may have become read-only."""
    with suppress(OSError):
        partial.unlink(missing_ok=True)


def _write(partial: Path, path: Path, data: bytes, like: Sequence[Path]) -> None:
    """What `path` is to be replaced by, with its permissions and attributes; else see `write_atomically`."""
    with partial.open("xb") as file:
        for other in like:
            _keep_private(other, file.fileno(), exactly=len(like) == 1)
        _copy_attributes(path, file.fileno())
        _copy_permissions(path, file.fileno())
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def put_in_place(partial: Path, path: Path) -> None:
    """Give a file its name. Windows refuses while another program has the one it replaces open, as scanners of files do
    for moments."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            partial.replace(path)
        except OSError as error:
            if getattr(error, "winerror", None) not in _IN_USE or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def _copy_attributes(path: Path, descriptor: int) -> None:
    """Give an open file the extended attributes of `path`, such as tags; where there are any, that is on Linux."""
    if not hasattr(os, "listxattr"):
        return
    names: list[str] = []
    with suppress(OSError):  # among them, that there is no such file
        names = os.listxattr(path)
    for name in names:
        if name.startswith("user."):
            with suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(path, name))


def _keep_private(like: Path, descriptor: int, exactly: bool) -> None:
    """Take from a new file the rights that others do not have of another, where there is that. If its group is another,
    or there is a list of rights that it cannot have, or is not to have (but `exactly`), it is for others only where
    all may read both."""
    if not hasattr(os, "fchown"):  # as in `_copy_permissions`
        return
    with suppress(OSError):
        about, made = like.stat(), os.fstat(descriptor)
        allowed = stat.S_IMODE(about.st_mode) | stat.S_IRUSR | stat.S_IWUSR
        alike = made.st_gid == about.st_gid and (_copy_acl(like, descriptor) if exactly else not _has_acl(like))
        if not alike:
            by_all = allowed & _READ_BY_ALL == _READ_BY_ALL
            allowed = allowed & ~(stat.S_IRWXG | stat.S_IRWXO) | (stat.S_IRWXG | allowed & stat.S_IRWXO) * by_all
        os.fchmod(descriptor, stat.S_IMODE(made.st_mode) & allowed)


def _copy_permissions(path: Path, descriptor: int) -> None:
    """Give an open file mode, owner, group and access control list of `path`, where there is one and the user may.
    Rights of a group that is not the same, or that only a list explains, are left out: nobody gains any."""
    if not hasattr(os, "fchown"):  # Windows, which has fchmod from Python 3.13 on
        return
    with suppress(OSError):  # among them, that there is no such file
        about = path.stat()
        mode = stat.S_IMODE(about.st_mode)
        kept = [_copy_owner(about, descriptor), _copy_acl(path, descriptor)]
        os.fchmod(descriptor, mode if all(kept) else mode & ~(stat.S_IRWXG | stat.S_ISGID))


def _copy_owner(about: os.stat_result, descriptor: int) -> bool:
    """Give an open file the owner and the group of another, or the group alone; whether it has that."""
    for owner in (about.st_uid, -1):
        with suppress(OSError):
            os.fchown(descriptor, owner, about.st_gid)
            return True
    return os.fstat(descriptor).st_gid == about.st_gid


def _has_acl(path: Path) -> bool:
    with suppress(OSError, AttributeError):  # it has none, or its file system or system knows of none
        return bool(os.getxattr(path, _ACL))
    return False


def _copy_acl(path: Path, descriptor: int) -> bool:
    """Give an open file the access control list of another, or none as that has; whether it has it."""
    if not hasattr(os, "getxattr"):
        return True
    try:
        rights = os.getxattr(path, _ACL)
    except OSError:  # it has none, or its file system knows of none
        with suppress(OSError):
            os.removexattr(descriptor, _ACL)  # that the folder gives to new files
        return True
    try:
        os.setxattr(descriptor, _ACL, rights)
    except OSError:
        return False
    return True


def write_error(path: Path, error: OSError) -> MdrnError:
    """The error for a file or folder that cannot be written."""
    return MdrnError(
        f"cannot write {path} ({error.strerror or error})",
        _HINTS.get(error.errno or 0, "look at the folder, then run it again"),
    )


def as_mdrn_error(error: Exception, path: Path, doing: str) -> MdrnError:
    """Turn any error about one file of several into an MdrnError.

    Args:
        error: as it was raised.
        path: the file; `-` is a pipe.
        doing: "read" or "write".
    """
    if isinstance(error, MdrnError):
        return error.naming(path)
    if isinstance(error, OSError) and doing == "write":
        wrapped = write_error(Path("stdout") if str(path) == "-" else path, error)
    elif lacks_memory(error):
        wrapped = OutOfMemoryError(f"not enough memory for {path}")
    elif isinstance(error, OSError):
        wrapped = InputError(f"cannot {doing} {path} ({error.strerror or error})")
    else:
        wrapped = MdrnError(f"{path}: unexpected {type(error).__name__}: {error}", "please report this")
    wrapped.__cause__ = error
    return wrapped


@contextmanager
def telling_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into that of `write_error`."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def refuse_closed_stdout() -> None:
    """Refuse to go on without standard output.

    Raises:
        MdrnError: standard output is closed.
    """
    if sys.stdout is None:  # as a shell's >&- leaves it
        raise MdrnError("standard output is closed")


def remove_leftovers(folder: Path) -> None:
    """Remove partial files that killed runs have left in a folder; those of runs under way are too young."""
    found: list[Path] = []
    with suppress(OSError):
        found += folder.glob(_PARTIAL.format("*"))
    for partial in found:
        with suppress(OSError):  # another user's stays, and what another run has just removed
            if time.time() - partial.stat().st_mtime > LEFTOVER_AGE:
                partial.unlink()

"""Files written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mdrn_cli.errors import MdrnError, UsageError

LEFTOVER_AGE = 600.0
"""Seconds after which a partial file that nobody has touched is taken for one that a kill has left."""
_PARTIAL = ".mdrn-{}.part"
_ACL = "system.posix_acl_access"  # rights of further users and groups, on Linux
_HINTS = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, then run it again") | dict.fromkeys(
    (errno.EROFS, errno.EACCES, errno.EPERM), "choose a folder that can be written to"
)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path`, of a link the file behind it, by `data` in one step that survives a crash at any moment; what is
    replaced keeps its permissions and the attributes that its user has given it.

    A kill may leave a partial file beside it, hidden and with a suffix of its own; see `remove_leftovers`.

    Raises:
        MdrnError: the folder cannot be written; `path` is as before.
    """
    path = behind_link(path)
    # A random name: process numbers repeat among containers that share a folder.
    partial = path.with_name(_PARTIAL.format(secrets.token_hex(8)))
    try:
        with partial.open("xb") as file:
            _copy_attributes(path, file.fileno())
            _copy_permissions(path, file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):  # also of a folder that has become read-only
            partial.unlink(missing_ok=True)


def _copy_attributes(path: Path, descriptor: int) -> None:
    """Give an open file the extended attributes of `path`, such as tags; where there are any, that is on Linux."""
    if not hasattr(os, "listxattr"):
        return
    with suppress(OSError):  # among them, that there is no such file
        for name in os.listxattr(path):
            if name.startswith("user."):
                os.setxattr(descriptor, name, os.getxattr(path, name))


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
    """What to tell of a file or folder that cannot be written."""
    return MdrnError(
        f"cannot write {path} ({error.strerror or error})",
        _HINTS.get(error.errno or 0, "look at the folder, then run it again"),
    )


@contextmanager
def telling_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into what `write_error` tells."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def refuse_closed_stdout() -> None:
    """Tell that nothing can be put out.

    Raises:
        MdrnError: standard output is closed.
    """
    if sys.stdout is None:  # as a shell's >&- leaves it
        raise MdrnError("standard output is closed")


def remove_leftovers(folder: Path) -> None:
    """Remove partial files that killed runs have left in a folder; those of runs under way are too young."""
    with suppress(OSError):
        for partial in folder.glob(_PARTIAL.format("*")):
            if time.time() - partial.stat().st_mtime > LEFTOVER_AGE:
                partial.unlink()


def exists(path: Path) -> bool:
    """Whether there is something of that name; never an error, as where the name is too long to be one."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name; never an error."""
    return exists(path) and path.is_dir()


def is_file(path: Path) -> bool:
    """Whether there is a file of that name; never an error."""
    return exists(path) and path.is_file()


def refuse_existing(path: Path, overwrite: bool, hint: str = "use --overwrite to replace it") -> None:
    """Tell, before any work is done for it, that a file cannot have a name.

    Raises:
        UsageError: there is a file of that name, not to be replaced; or a folder, a device or an open file (such as
            /dev/stdout, which may be a log that goes on), which never is.
    """
    if not exists(path):
        return
    if not path.is_file() or _is_open_file(path):
        raise UsageError(f"{path} exists already and is not a file", "give another name")
    if not overwrite:
        raise UsageError(f"{path} exists already", hint)


def _is_open_file(path: Path) -> bool:
    """Whether a path is a descriptor of this process, whatever that is of."""
    folder = real_path(path.parent)
    return str(path) in ("/dev/stdin", "/dev/stdout", "/dev/stderr") or (
        folder.parts[:2] == ("/", "proc") and folder.name == "fd"
    )


def require_folder(folder: Path) -> None:
    """Tell, before any work is done for it, that a file has nowhere to go.

    Raises:
        UsageError: there is no such folder.
    """
    if not is_folder(folder):
        raise UsageError(f"no folder {folder} to write to", "create it first")


def is_link(path: Path) -> bool:
    """Whether a path is a link, to whatever; never an error."""
    return os.path.islink(path)  # noqa: PTH114 (Path's own fails for names too long)


def behind_link(path: Path) -> Path:
    """The file that a link leads to, there or not, so that it is written and not the link; any other path as it is."""
    return real_path(path) if is_link(path) else path


def real_path(path: Path) -> Path:
    """The path without links, as far as it is there; a link that leads back to itself stays as it is."""
    return Path(os.path.realpath(path))


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

"""Staged writes and careful opening: the only place that puts bytes on a disk.

In: bytes, or a function that writes a file. Out: a file that is whole or absent. Every OS
error on the way becomes a ``StoreError`` that names the path and says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from era_cache.errors import FormatError, InputError, StoreError

__all__ = [
    "POINTER",
    "TEMPORARY_PREFIX",
    "check_writable",
    "fsync_folder",
    "is_companion",
    "is_left_behind",
    "is_pointer",
    "make_folder",
    "os_errors",
    "regular_file",
    "remove_stale_temporaries",
    "safe_name",
    "sha256_file",
    "staged",
    "temporary_name",
    "write_bytes",
]

TEMPORARY_PREFIX = ".tmp-"
_STALE_SECONDS = 24 * 3600
_ADVICE = {
    errno.ENOSPC: "The disk is full. Free some space and run the command again; what was committed "
    "is kept.",
    errno.EDQUOT: "Your disk quota is used up. Free some space and run the command again; what was "
    "committed is kept.",
    errno.EROFS: "The file system is read-only. Choose a folder that can be written.",
    errno.EACCES: "Permission denied. Check the owner and mode, or choose another folder.",
    errno.EPERM: "Permission denied. Check the owner and mode, or choose another folder.",
    errno.EEXIST: "A file is in the way. Choose another path.",
    errno.ENOENT: "It does not exist. Check the path.",
    errno.ENOTDIR: "A part of the path is a file, not a folder.",
    errno.EISDIR: "It is a folder, but a file is needed.",
    errno.ESTALE: "The network folder went away. Mount it again and run the command again.",
    errno.EIO: "The device reported an error. Check the disk or the mount.",
}


@contextlib.contextmanager
def os_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a ``StoreError`` with advice.

    Args:
        doing: what was going on, as a verb phrase ("writing a segment").
        path: what it was done to.
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "")
        reason = error.strerror or str(error)
        raise StoreError(f"{path}: {doing} failed: {reason}. {advice}".rstrip()) from error


def sha256_file(path: Path) -> str:
    """SHA-256, in hex, of a file's content. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


POINTER = "a pointer of Git LFS, not the file itself. Get the file: git lfs pull"
_POINTER_START = b"version https://git-lfs.github.com/spec/"
_POINTER_SIZE = len(_POINTER_START)


def is_pointer(head: bytes) -> bool:
    """Whether a file that begins like this stands for one that Git LFS has not brought yet."""
    return head.startswith(_POINTER_START)


@contextlib.contextmanager
def regular_file(path: Path, access: int = os.O_RDONLY) -> Iterator[tuple[int, int]]:
    """Open a regular file from a stranger: a link is not followed, a pipe not waited for.

    Yields:
        Its descriptor, and its size in bytes.

    Raises:
        FormatError: it is a link, a pipe, a device, or a pointer of Git LFS.
        OSError: it cannot be opened.
    """
    try:
        # A FIFO that nobody writes to would block for ever.
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise FormatError(
                f"{path}: a symbolic link; links are refused. Replace it by what it points to."
            ) from error
        raise
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path}: not a regular file.")
        if access == os.O_RDONLY and is_pointer(os.pread(descriptor, _POINTER_SIZE, 0)):
            raise FormatError(f"{path}: {POINTER}")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where its file system can. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a folder; the rename itself is then all
        # that can be had.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path, *, may_be_link: bool = False) -> None:
    """Make a folder and its missing parents, durably.

    Args:
        folder: its parents may be links.
        may_be_link: the folder itself, too; for a store's own folder.

    Raises:
        FormatError: it is a link, which could lead out of the store.
        StoreError: it cannot be made.
    """
    with os_errors("creating", folder):
        if folder.is_symlink() and not may_be_link:
            raise FormatError(
                f"{folder}: a link; nothing in a store may lead outside it. Replace it by what it "
                "points to."
            )
        if folder.is_dir():
            return
        make_folder(folder.parent, may_be_link=True)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def check_writable(folder: Path) -> None:
    """Find out before any work whether a folder can be written, or made, when it is done.

    Raises:
        StoreError: it cannot; a file is in the way, or permission is missing.
    """
    place = folder
    with os_errors("writing", folder):
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        if not place.is_dir():
            number = errno.EEXIST if place == folder else errno.ENOTDIR
            raise OSError(number, os.strerror(number))
        probe = place / temporary_name(".probe")
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        probe.unlink()


def temporary_name(suffix: str) -> str:
    """A name that no other writer uses, and that says who wrote: see ``is_left_behind``."""
    return f"{TEMPORARY_PREFIX}{_process_space()}-{os.getpid()}-{uuid.uuid4().hex[:12]}{suffix}"


@functools.cache
def _process_space() -> str:
    """Tell where a process number means something: this host since its start, in this container.

    Two containers may share a host's name, but not the numbers of their processes.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def staged(folder: Path, suffix: str = "") -> Iterator[tuple[Path, Any]]:
    """Give a temporary path in ``folder`` and a function that commits it under a final name.

    The block writes the temporary file, then calls ``commit(name)``: the file is fsynced, renamed
    to ``folder / name`` and the folder fsynced. Leaving the block without a commit removes the
    temporary file.

    Yields:
        (temporary path, commit function taking the final file name and returning the final path).

    Raises:
        StoreError: any OS error on the way.
    """
    temporary = folder / temporary_name(suffix)

    def commit(name: str) -> Path:
        final = folder / name
        with os_errors("writing", final):
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(final)
            fsync_folder(folder)
        return final

    try:
        with os_errors("writing", folder):
            yield temporary, commit
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file through a temporary name. Raises ``StoreError``."""
    with staged(path.parent, path.suffix) as (temporary, commit):
        temporary.write_bytes(data)
        commit(path.name)


_COMPANIONS = frozenset(
    {".DS_Store", ".localized", "@eaDir", "#recycle", "Thumbs.db", "ehthumbs.db", "desktop.ini"}
)


def is_companion(name: str) -> bool:
    """Whether macOS, Windows or a NAS put this beside people's files: no data, and no one's own."""
    return name in _COMPANIONS or name.startswith("._")


def remove_stale_temporaries(folder: Path) -> int:
    """Delete temporary files that killed writers left in ``folder``. Returns how many went."""
    removed = 0
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if is_left_behind(path):
                path.unlink()
                removed += 1
    return removed


def is_left_behind(path: Path) -> bool:
    """Whether the writer of a temporary file or folder is gone.

    It is when its process is, or when it is a day old (processes of another host or container
    cannot be seen). What cannot be looked at is not.
    """
    parts = path.name[len(TEMPORARY_PREFIX) :].split("-")
    ours = len(parts) >= 3 and parts[0] == _process_space() and parts[1].isdecimal()
    if ours and not _process_lives(int(parts[1])):
        return True
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    return False


def _process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def safe_name(name: str) -> str:
    """Check that ``name`` can be a file name on any system.

    Raises:
        InputError: empty, too long, or with characters beyond letters, digits, ``.``, ``_``, ``-``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name):
        raise InputError(
            f"'{name}' cannot be used as a name: use 1 to 64 letters, digits, '.', '_' or '-', "
            "not starting with '.' or '-'."
        )
    return name

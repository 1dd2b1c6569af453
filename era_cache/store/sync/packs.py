"""Packs: a store as one uncompressed tar file, to hand to someone.

In: a store's files, or a tar file from a stranger. Out: the same bytes for the same files, or a
place to read from. Members are read as streams; nothing is ever extracted by name.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, Self

from era_cache.disk.files import os_errors, staged
from era_cache.errors import FormatError, InputError, StoreError
from era_cache.store.names import FOLDER
from era_cache.store.sync.places import CHUNK_BYTES, Listing, count_name, kind_of

__all__ = ["PackPlace", "PackWriter", "pack_writer"]

# Of extended headers a member needs one of 1 KiB; tarfile would read as many as there are.
_HEADER_BYTES = 64 << 10
_PLAIN_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE)


class PackWriter:
    """Adds files to a tar file that is being written; see ``pack_writer``."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def send(self, local: Path, name: str) -> int:
        """Add a file; names must come in sorted order.

        Returns:
            Its size in bytes.

        Raises:
            StoreError: it cannot be read.
        """
        with os_errors("reading", local):
            source = local.open("rb")
        with source:
            member = tarfile.TarInfo(name)  # time, owner and group are 0: equal stores, equal packs
            member.size, member.mode = os.fstat(source.fileno()).st_size, 0o644
            self._file.write(member.tobuf(tarfile.PAX_FORMAT))
            written = 0
            while chunk := source.read(CHUNK_BYTES):
                written += self._file.write(chunk)
        if written != member.size:
            raise StoreError(f"{local}: changed while it was packed. Pack again.")
        self._file.write(tarfile.NUL * (-written % tarfile.BLOCKSIZE))
        return written


@contextlib.contextmanager
def pack_writer(path: Path) -> Iterator[PackWriter]:
    """Open a new tar file, which gets its name when the block ends without an error.

    Raises:
        InputError: there is a file of that name.
        StoreError: it cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise InputError(f"{path}: exists. Remove it, or choose another name for the pack.")
    with staged(path.parent, ".tar") as (temporary, commit):
        with temporary.open("wb") as file:
            yield PackWriter(file)
            end = file.tell() + 2 * tarfile.BLOCKSIZE
            file.write(tarfile.NUL * (2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
        commit(path.name)


class _BoundedReader:
    """A file that gives tarfile a limited number of bytes at a time.

    tarfile reads an extended header as long as it claims to be, and any number of them.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left = _HEADER_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Read as far as is allowed. Raises ``FormatError`` beyond."""
        if not 0 <= size <= self.left:
            raise FormatError("an extended header is too long")
        self.left -= size
        return self._file.read(size)


class PackPlace:
    """A tar file that holds a store, to read from. A context manager.

    Raises:
        FormatError: it is not an uncompressed tar file.
        StoreError: it cannot be opened.
    """

    threads = 1

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        with os_errors("opening", path):
            if not path.is_file():
                path.stat()
                raise InputError(f"{path}: not a file.")
            self._file = path.open("rb")
        self._reader = _BoundedReader(self._file)
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            with self._errors():
                # A BinaryIO to tarfile is whatever can read, seek and tell.
                self._tar = tarfile.open(fileobj=self._reader, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def listing(self) -> Listing:
        """What lies there. Raises ``FormatError`` where the file is damaged or cut off."""
        found = Listing({}, {})
        seen, self._tar.offset = 0, 0
        while (member := self._next()) is not None:
            seen = count_name(seen, self.label)
            name = member.name.removeprefix("./")
            kind = kind_of(name)
            if kind is None or (kind == FOLDER and member.isdir()):
                continue
            if member.type not in _PLAIN_TYPES or member.issparse() or member.size < 0:
                found.refused[name] = (
                    f"{self.label}: '{name}' is a link or another special member, not a plain file."
                )
            else:
                found.files[name] = member.size
                self._members[name] = member
        return found

    def _next(self) -> tarfile.TarInfo | None:
        """Read the next header.

        ``TarFile.next`` would remember every member, and take damage for the end.
        """
        tar, self._reader.left = self._tar, _HEADER_BYTES
        with self._errors():
            start = tar.offset
            self._file.seek(start)
            if self._file.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE:
                return None
            self._file.seek(start)
            tar.pax_headers = {}
            member = tarfile.TarInfo.fromtarfile(tar)
            if tar.offset <= start:
                raise tarfile.ReadError("a member of negative size")
        return member

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a member in pieces."""
        with self._errors():
            file = self._tar.extractfile(self._members[name])
        while file is not None:
            self._reader.left = 2 * CHUNK_BYTES
            with self._errors():
                chunk = file.read(CHUNK_BYTES)
            if not chunk:
                return
            yield chunk

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with os_errors("reading", Path(self.label)):
                yield
        except (
            tarfile.TarError,
            FormatError,
            ValueError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise FormatError(
                f"{self.label}: not an uncompressed tar file, damaged, or cut off: {error}. "
                "Copy it again, and compare the sizes (unpack .gz, .bz2 or .xz first)."
            ) from error

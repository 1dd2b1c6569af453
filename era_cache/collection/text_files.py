"""Files of text, plain or packed with gzip: read in blocks of whole lines, written in one step.

In: a path. Out: blocks of bytes; and the same way back.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from era_cache.disk.files import POINTER, is_pointer, staged
from era_cache.errors import InputError

__all__ = ["read_blocks", "refuse_other_kinds", "whole_lines", "write_text"]

_BLOCK = 1 << 18
"""Bytes of a block: what is made of it still fits the processor's cache."""

_LONGEST_LINE = 1 << 16
_OTHER_KINDS = (
    *(
        (start, "UTF-16 text", "Convert it: iconv -f UTF-16 -t UTF-8 {path} > new-{path}")
        for start in (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{", b'"\0', b'\0"')
    ),
    (
        b"PAR1",
        "a Parquet file",
        "Convert it: pandas.read_parquet('{path}').to_json('new.jsonl', orient='records', "
        "lines=True)",
    ),
    (b"PK\x03\x04", "a zip archive", "Unpack it: unzip {path}"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "Unpack it: zstd -d {path}"),
    (b"BZh", "packed with bzip2", "Unpack it: bunzip2 {path}"),
    (b"\xfd7zXZ\0", "packed with xz", "Unpack it: unxz {path}"),
)
"""First bytes of what people mistake for text, what it is, and what to do."""
_EXPANSION, _EXPANSION_FROM = 200, 1 << 26
"""Lists of results shrink 3 to 40 times in gzip. What claims to be 200 times its size is no such
list; below 64 MiB it does no harm."""


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in blocks, unpacked where it is gzip, without a byte order mark.

    Raises:
        InputError: it cannot be read, is damaged gzip, or unpacks to an absurd size.
    """
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            blocks = _unpacked(path, file) if packed else iter(lambda: file.read(_BLOCK), b"")
            for number, block in enumerate(blocks):
                if not number:
                    refuse_other_kinds(path, block)
                yield block if number else block.removeprefix(b"\xef\xbb\xbf")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip ({error}). Get the file again.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def refuse_other_kinds(path: Path, head: bytes) -> None:
    """Name what a file is by its first bytes, where that is no text in UTF-8.

    Raises:
        InputError: UTF-16, a Git LFS pointer, Parquet or another packed form; with the remedy.
    """
    if is_pointer(head):
        raise InputError(f"{path}: {POINTER}")
    for start, kind, remedy in _OTHER_KINDS:
        if head.startswith(start):
            raise InputError(f"{path}: {kind}. {remedy.format(path=path.name)}")


class _Counted(io.RawIOBase):
    """A file that counts what is read from it; a pipe cannot tell its place."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data


def _unpacked(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    size, packed = 0, _Counted(file)
    with gzip.GzipFile(fileobj=packed) as unpacked:
        while block := unpacked.read(_BLOCK):
            size += len(block)
            if size > max(_EXPANSION_FROM, _EXPANSION * packed.count):
                raise InputError(
                    f"{path}: the gzip file unpacks to more than {_EXPANSION} times its size, "
                    "which no run and no judgements do. Unpack it and look what it holds."
                )
            yield block


def whole_lines(
    path: Path, blocks: Iterable[bytes], longest: int | None = _LONGEST_LINE
) -> Iterator[tuple[int, bytes]]:
    """Cut at line ends: yield the number of the first line and some whole lines.

    Blank lines at the file's end are left out.

    Raises:
        InputError: a line has more than ``longest`` bytes.
    """
    line, size = 1, 0
    rest: list[bytes] = []
    for block in blocks:
        lines, end, tail = block.rpartition(b"\n")
        if end:
            whole = b"".join([*rest, lines, end])
            sound = whole.rstrip(b" \t\r\n")
            cut = whole.find(b"\n", len(sound)) + 1 if sound else 0
            if cut:
                yield line, whole[:cut]
                line += whole.count(b"\n", 0, cut)
            rest, size = [whole[cut:]], len(whole) - cut
        rest.append(tail)
        size += len(tail)
        if longest is not None and size > longest:
            raise InputError(
                f"{path} line {line}: more than {longest} bytes. This is no file of lines; "
                "check that it is the right one."
            )
    last = b"".join(rest)
    if last.strip():
        yield line, last + b"\n"


def write_text(path: Path, pieces: Iterable[str]) -> None:
    """Replace a file in one step: readers see the old one or the new one, whole.

    Raises:
        StoreError: it cannot be written.
    """
    with staged(path.parent, path.suffix) as (temporary, commit):
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces)
        commit(path.name)

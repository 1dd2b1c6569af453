"""BEIR collections as they are downloaded: one folder in a zip file.

In: the file. Out: a ``TextCollection``, read from an unpacked copy that goes afterwards.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from era_cache.collection.assemble import ReaderSettings
from era_cache.collection.beir import read_beir
from era_cache.collection.records import TextCollection
from era_cache.disk.files import is_companion
from era_cache.errors import InputError

__all__ = ["read_zip"]

_WANTED = (".jsonl", ".tsv", ".json", ".gz", ".txt")
_MOST_FILES = 10_000
_EXPANSION, _EXPANSION_FROM = 200, 1 << 26
"""As for gzip: what claims to be 200 times its size is no collection."""


def read_zip(
    path: Path,
    settings: ReaderSettings,
) -> TextCollection:
    """Read a zip file of one collection in BEIR layout; see ``readers.Reader``.

    Raises:
        InputError: it is no such file, or holds no collection or several.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="era-zip-") as scratch:
            with zipfile.ZipFile(path) as archive:
                _unpack(path, archive, Path(scratch))
            folder = _only_collection(path, Path(scratch))
            name = settings.name or path.name.removesuffix(".zip")
            return read_beir(folder, settings._replace(name=name))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        # The last for files with a password.
        raise InputError(f"{path}: cannot be unpacked: {error}. Get the file again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read or unpacked: {error.strerror}.") from error


def _unpack(path: Path, archive: zipfile.ZipFile, into: Path) -> None:
    members = [one for one in archive.infolist() if _is_wanted(one)]
    size = sum(one.file_size for one in members)
    if len(members) > _MOST_FILES:
        raise InputError(f"{path}: {len(members):,} files; a collection has few.")
    if size > max(_EXPANSION_FROM, _EXPANSION * path.stat().st_size):
        raise InputError(f"{path}: unpacks to more than {_EXPANSION} times its size.")
    for one in members:
        # Names that lead outside are cut by ``extract``, links become files of their text.
        archive.extract(one, into)


def _is_wanted(one: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(one.filename).parts
    hidden = any(is_companion(part) or part == "__MACOSX" for part in parts)
    return not one.is_dir() and not hidden and one.filename.endswith(_WANTED)


def _only_collection(path: Path, scratch: Path) -> Path:
    found = sorted({one.parent for one in scratch.rglob("corpus.jsonl*")})
    found = found or sorted({one.parent for one in scratch.rglob("queries.jsonl*")})
    if len(found) != 1:
        raise InputError(
            f"{path}: {len(found) or 'no'} folders with corpus.jsonl or queries.jsonl in it; "
            "expected one. Unpack it and name the folder."
        )
    return found[0]

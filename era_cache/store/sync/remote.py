"""Stores at a URL: object stores, SSH and whatever else fsspec speaks.

In: a URL. Out: a place as in ``places``. A file appears there whole or not at all; retries and
credentials are the business of fsspec and of the protocol's own package.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from era_cache.disk.files import TEMPORARY_PREFIX
from era_cache.errors import EraError, InputError, StoreError
from era_cache.store.names import FOLDER, Entry
from era_cache.store.sync.places import CHUNK_BYTES, Listing, LocalPlace, list_store

__all__ = ["RemotePlace", "place_at"]

_THREADS = 4
_READ_AHEAD = 8 << 20
# A put to these is visible only when it is whole.
_WHOLE_PUTS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "memory"}
# The packages' own defaults hold up to 2 GB of a file in memory.
_PUT_OPTIONS = {
    **{name: {"chunksize": 8 << 20, "max_concurrency": 2} for name in ("s3", "s3a")},
    **{name: {"chunksize": 8 << 20} for name in ("gs", "gcs")},
}
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("ssh", "sftp"), "paramiko"),
    **dict.fromkeys(("http", "https"), "aiohttp requests"),
    **{"oci": "ocifs", "oss": "ossfs", "smb": "smbprotocol", "webdav": "webdav4"},
}


def place_at(url: str) -> LocalPlace | RemotePlace:
    """The place that a URL or the path of a folder names.

    Raises:
        InputError: the URL's protocol is not known.
        StoreError: the package for it is missing, or it cannot be reached.
    """
    for prefix in ("file://", "local://"):
        url = url.removeprefix(prefix)
    return RemotePlace(url) if "://" in url else LocalPlace(Path(url))


class RemotePlace:
    """A store at a URL, to read from and to write to."""

    def __init__(self, url: str) -> None:
        self.label = re.sub(r"//[^/@]*@", "//…@", url.rstrip("/"))
        protocol = re.split("::|://", url)[0]
        import fsspec

        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            advice = f" Run: pip install {package}" if package else ""
            raise StoreError(f"{self.label}: {str(error).rstrip('.')}.{advice}") from error
        except ValueError as error:
            raise InputError(f"{self.label}: {error}. Check the part before '://'.") from error
        with self._errors("connecting"):
            # Listings that another thread keeps may be older than what was just put.
            options = {"use_listings_cache": False} if protocol in _PUT_OPTIONS else {}
            self._fs, root = fsspec.url_to_fs(url, **options)
        self._root: str = root.rstrip("/")
        self._whole_puts = protocol in _WHOLE_PUTS
        self._put_options = _PUT_OPTIONS.get(protocol, {})
        self.threads = _THREADS if getattr(self._fs, "async_impl", False) else 1

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield the names in a folder. Raises ``StoreError`` where it cannot be listed."""
        path = f"{self._root}/{folder}".rstrip("/")
        with self._errors(f"listing '{folder or '.'}'"):
            try:
                self._fs.invalidate_cache()
                found = self._fs.ls(path, detail=True)
            except FileNotFoundError:  # object stores have no empty folders
                return
        for entry in found:
            parent, _, name = str(entry["name"]).rstrip("/").rpartition("/")
            if parent.strip("/") == path.strip("/") and name:
                size = entry.get("size")
                yield Entry(name, _form(entry), -1 if size is None else int(size), _stamp(entry))

    def listing(self) -> Listing:
        """What lies there."""
        return list_store(self.label, self.entries)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a file in pieces."""
        with contextlib.ExitStack() as stack:
            with self._errors(f"opening '{name}'"):
                opened = self._fs.open(f"{self._root}/{name}", "rb", block_size=_READ_AHEAD)
                file = stack.enter_context(opened)
            while True:
                with self._errors(f"reading '{name}'"):
                    chunk: bytes = file.read(CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk

    def ranges(self, name: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Read pieces of a file, many at the same time where the protocol can.

        Raises ``StoreError``; caused by ``FileNotFoundError`` where it is gone.
        """
        with self._errors(f"reading '{name}'"):
            paths = [f"{self._root}/{name}"] * len(starts)
            found = self._fs.cat_ranges(paths, list(starts), list(ends))
            for one in found:
                if isinstance(one, BaseException):
                    raise one
            return [bytes(one) for one in found]

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None where it is not there. Raises ``StoreError``."""
        with self._errors(f"looking for '{name}'"):
            self._fs.invalidate_cache()
            try:
                return int(self._fs.info(f"{self._root}/{name}")["size"])
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Delete a file; one that is gone is fine. Raises ``StoreError``."""
        with self._errors(f"deleting '{name}'"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def send(self, local: Path, name: str) -> int:
        """Put a file under its name, and compare the size that the other side reports.

        Returns:
            Its size in bytes.

        Raises:
            StoreError: it did not arrive.
        """
        final = f"{self._root}/{name}"
        with self._errors(f"writing '{name}'"):
            size = local.stat().st_size
            if self._whole_puts:
                self._fs.put_file(str(local), final, **self._put_options)
                self._compare(final, size)
            else:
                self._put_aside(local, final, size)
        return size

    def _put_aside(self, local: Path, final: str, size: int) -> None:
        folder = final.rpartition("/")[0]
        temporary = f"{folder}/{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            self._fs.put_file(str(local), temporary)
            self._compare(temporary, size)
            self._fs.mv(temporary, final)
        except BaseException:
            # The first error is the one to tell; readers pass over what may be left.
            with contextlib.suppress(Exception):
                self._fs.rm_file(temporary)
            raise

    def _compare(self, path: str, size: int) -> None:
        self._fs.invalidate_cache()
        found = self._fs.info(path)["size"]
        if found != size:
            raise StoreError(
                f"{self.label}: '{path}' has {found} bytes there, but {size} here. Run the same "
                "command again."
            )

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except EraError:
            raise
        except Exception as error:  # each protocol's package has errors of its own
            reason = str(error).rstrip(".") or type(error).__name__
            raise StoreError(
                f"{self.label}: {doing} failed: {reason}. Check the URL, the credentials and the "
                "connection. What was copied is kept; the same command goes on from there."
            ) from error


def _stamp(entry: dict[str, Any]) -> str:
    names = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    return "".join(f"{name}={entry[name]};" for name in names if entry.get(name))


def _form(entry: dict[str, Any]) -> str:
    if entry.get("islink") or entry.get("type") == "link":
        return "link"
    form = entry.get("type")
    return {"file": "file", "directory": FOLDER}.get(str(form), f"'{form}'")

"""One encoder of a store: the rows of one role, in any number of segments.

In: the folder of an encoder, which others may write to at the same time. Out: its segments, the
index of its rows, and rows by key as float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from era_cache.errors import StoreError
from era_cache.store.encoder_record import StoredSpec, read_encoder_record
from era_cache.store.key_index import KeyIndex
from era_cache.store.names import SEGMENT_NAME, list_names, list_sizes, list_steadily
from era_cache.store.read_rows import mapped_rows, read_rows
from era_cache.store.retired import retire, retired_path
from era_cache.store.segment import Segment, has_vanished, look_again, open_segment
from era_cache.store.sorted_keys import is_worth_a_file, persist_index, unindexed_rows
from era_cache.types import Array, FloatArray, Keys

__all__ = ["StoredEncoder"]


class StoredEncoder:
    """One encoder's folder in a store: the rows of one role.

    ``spec`` describes the encoder; ``folder`` is where its segments lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.others: list[Path] = []
        """Folders of the same fingerprint under another name, as copying two stores can give."""
        self.spec: StoredSpec = read_encoder_record(folder / "encoder.json", folder.name)

    @property
    def place(self) -> str:
        """How messages name the store."""
        return str(self.folder.parent.parent)

    @property
    def indexed_in(self) -> Path:
        """The folder whose ``index`` holds files of sorted keys."""
        return self.folder

    def publish(self, path: Path) -> None:
        """Tell that a segment was sealed in this encoder's folder. Raises ``StoreError``."""

    def retire(self, paths: Iterable[Path], by: str | None, *, dropped: bool = False) -> None:
        """Set segments aside that another one has replaced; see ``retired.retire``."""
        retire(paths, by, dropped=dropped)

    def segment_sizes(self) -> list[tuple[Path, int]]:
        """The committed segments with their sizes in bytes. Raises as ``segment_paths``."""
        folders = (parent / "segments" for parent in (*self.others, self.folder))
        return [one for folder in folders for one in list_sizes(folder, SEGMENT_NAME)]

    def segment_paths(self) -> list[Path]:
        """The committed segments, by name.

        Raises:
            FormatError: one of them is a link.
            StoreError: they cannot be listed.
        """
        paths = list_steadily(self._listed)
        return [paths[name] for name in sorted(paths)]

    def _listed(self) -> dict[str, Path]:
        paths = {}
        for folder in (parent / "segments" for parent in (*self.others, self.folder)):
            paths.update({name: folder / name for name in list_names(folder, SEGMENT_NAME)})
        return paths

    def segments(self, *, check: bool = False) -> list[Segment]:
        """Open all segments, the preferred first: float32, float16, int8, then by name.

        Args:
            check: compare each content with its digest, too.

        Raises:
            FormatError: a segment is damaged; the message names it.
            StoreError: they cannot be read.
        """
        return look_again(self.folder, lambda: self._segments(check))

    def _segments(self, check: bool) -> list[Segment]:
        opened = self._opened(self.segment_paths())
        if check:
            with ThreadPoolExecutor(4) as pool:
                opened = list(pool.map(lambda s: self.open_segment(s.path, check=True), opened))
        return sorted(opened, key=lambda segment: segment.preference)

    def _opened(self, paths: Sequence[Path]) -> list[Segment]:
        return [self.open_segment(path) for path in paths]

    def open_segment(self, path: Path, *, check: bool = False) -> Segment:
        """Open one segment; see ``segment.open_segment``."""
        fingerprint, dim = self.spec.fingerprint, self.spec.dim
        try:
            return open_segment(path, fingerprint, dim, check=check)
        except StoreError as error:
            # Replaced since it was listed: what replaced it is not in the list, but it is kept.
            kept = retired_path(path)
            if not has_vanished(error) or not kept.is_file():
                raise
            return open_segment(kept, fingerprint, dim, check=check)

    def index(self, *, check: bool = False) -> KeyIndex:
        """Index all rows.

        Args:
            check: compare the digest of every segment first.

        Raises:
            FormatError: a segment is damaged.
        """
        return look_again(self.folder, lambda: KeyIndex(self._segments(check), self.indexed_in))

    def keep_index(self) -> None:
        """Write the key index down, once many rows have come that no index file covers.

        Raises:
            StoreError: it cannot be written.
        """
        size = sum(size for _, size in self.segment_sizes())
        if is_worth_a_file(size // (16 + self.spec.dim)):  # int8 rows are the smallest
            look_again(self.folder, self._keep_index)

    def _keep_index(self) -> None:
        segments = self._segments(check=False)
        total = sum(segment.rows for segment in segments)
        if unindexed_rows(self.indexed_in, segments) * 10 > total:
            persist_index(self.indexed_in, segments)

    def vectors(
        self,
        keys: Keys,
        *,
        out: FloatArray | None = None,
        check: bool = False,
        index: KeyIndex | None = None,
    ) -> FloatArray:
        """Read rows by key.

        Args:
            keys: (n, 16) uint8, in the order wanted; repeats are fine.
            out: (n, d) float32 to fill; None makes one, or maps the file where its rows are
                float32 and lie in the order wanted.
            check: compare the digest of every segment before trusting it.
            index: one made before, to save building it again.

        Returns:
            (n, d) float32, as the model gave them (not normalised).

        Raises:
            StoreError: some keys are not stored.
            FormatError: a segment is damaged, or a vector is not finite.
        """
        if out is not None and (out.shape != (len(keys), self.spec.dim) or out.dtype != np.float32):
            raise ValueError(f"out is {out.dtype} {out.shape}, not ({len(keys)}, {self.spec.dim})")
        return self._looked_up(keys, out, index, check=check)

    def _looked_up(
        self, keys: Keys, out: Array | None, index: KeyIndex | None, *, check: bool = False
    ) -> Array:
        # A given index may name segments that are gone for good: then this one's own.
        given = [index] if index is not None else []
        return look_again(
            self.folder,
            lambda: self._vectors(keys, out, given.pop() if given else self.index(check=check)),
        )

    def half_vectors(self, keys: Keys, index: KeyIndex) -> Array | None:
        """Read rows by key as they are stored, where all are stored in half precision.

        Args:
            keys: (n, 16) uint8, in the order wanted.
            index: of this encoder.

        Returns:
            (n, d) float16; None where some rows are stored in another form.

        Raises:
            StoreError: some keys are not stored.
            FormatError: a segment is damaged, or a vector is not finite.
        """
        if any(segment.dtype != "float16" for segment in index.segments):
            return None
        out = np.empty((len(keys), self.spec.dim), dtype=np.float16)
        return self._looked_up(keys, out, index)

    def _vectors(self, keys: Keys, out: Array | None, index: KeyIndex) -> Array:
        positions = index.positions(keys)
        missing = int(np.count_nonzero(positions < 0))
        if missing:
            raise StoreError(
                f"{self.place}: {missing} of {len(keys)} rows are not encoded by "
                f"{self.spec.label()}. Run era-embed again: it encodes only what is missing."
            )
        if out is None:
            mapped = mapped_rows(index, positions)
            if mapped is not None:
                return mapped
            out = np.empty((len(keys), self.spec.dim), dtype=np.float32)
        read_rows(index, positions, out)
        return out

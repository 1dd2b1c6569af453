"""The store: vectors in immutable segments that any number of processes read and write.

In: keys and vectors from ``embed``. Out: the rows that were asked for, as float32, in the order
they were asked for. docs/format.md is the specification; nothing is ever changed in place.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from era_cache.collections import Collection, TextCollection, read_collection, write_collection
from era_cache.errors import EncoderError, FingerprintError, FormatError, StoreError
from era_cache.files import (
    canonical_json,
    json_digest,
    os_errors,
    read_json,
    remove_stale_temporaries,
    sha256_file,
    staged,
    write_json,
)
from era_cache.hdf5 import PlainFile, open_plain, write_plain
from era_cache.specs import EncoderSpec, StoredSpec, encoder_record, read_encoder_record
from era_cache.types import Array, FloatArray, IntArray, Keys, Role

__all__ = ["SIDES", "KeyIndex", "SegmentWriter", "Store", "StoredEncoder", "check_vectors"]

FORMAT, SEGMENT_FORMAT, PAIR_FORMAT, VERSION = "era-store", "era-segment", "era-pair", 1
SIDES = ("query", "small_query", "document", "align")
_PAIR_NAME = re.compile(r"[0-9a-f]{12}-[0-9a-f]{12}\.json")
_SEGMENT_NAME = re.compile(r"[0-9a-f]{64}\.h5")
_ENCODER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*-(query|document)-[0-9a-f]{12}")
_COLLECTION_NAME = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*)-([0-9a-f]{12})\.h5")
_PROVENANCE_LIMIT = 16_000
# Rows converted at a time, so that reading needs little memory beyond its result.
_BLOCK_ROWS = 1 << 16


class Segment(NamedTuple):
    """A checked segment: its arrays are memory maps, read when touched."""

    path: Path
    keys: Keys
    vectors: Array
    provenance: str


def _open_segment(path: Path, fingerprint: str, dim: int, *, check: bool) -> Segment:
    """Check one segment completely, its content's digest too where ``check``."""
    plain = open_plain(path, SEGMENT_FORMAT, VERSION)
    keys, vectors = _segment_slots(path, plain)
    attributes = plain.attributes
    if attributes.get("fingerprint") != fingerprint:
        raise FormatError(
            f"{path}: holds vectors of fingerprint {str(attributes.get('fingerprint'))[:12]}, but "
            f"lies in the folder of {fingerprint[:12]}. Move it back or remove it."
        )
    declared = (attributes.get("count"), attributes.get("dim"), attributes.get("dtype"))
    if declared != (len(keys), vectors.shape[1], vectors.dtype.name) or vectors.shape[1] != dim:
        raise FormatError(f"{path}: attributes {declared} do not match the arrays.")
    if check:
        verify_digest(path)
    return Segment(path, keys, vectors, str(attributes.get("created_by", "")))


def _segment_slots(path: Path, plain: PlainFile) -> tuple[Keys, Array]:
    if set(plain.slots) != {"keys", "vectors"}:
        raise FormatError(f"{path}: members {sorted(plain.slots)} are not those of a segment.")
    keys, vectors = plain.slots["keys"], plain.slots["vectors"]
    if keys.dtype != np.uint8 or keys.shape[1:] != (16,) or not keys.shape[0]:
        raise FormatError(f"{path}: 'keys' has dtype {keys.dtype} and shape {keys.shape}.")
    if vectors.dtype not in (np.float16, np.float32) or len(vectors.shape) != 2:
        raise FormatError(f"{path}: 'vectors' has dtype {vectors.dtype}, shape {vectors.shape}.")
    if vectors.shape[0] != keys.shape[0] or not vectors.shape[1]:
        raise FormatError(f"{path}: {keys.shape[0]} keys, but vectors of shape {vectors.shape}.")
    return plain.array("keys"), plain.array("vectors")


def verify_digest(path: Path) -> None:
    """Compare a segment's content with its name.

    Raises:
        FormatError: they differ.
        StoreError: it cannot be read.
    """
    with os_errors("reading", path):
        digest = sha256_file(path)
    if f"{digest}.h5" != path.name:
        raise FormatError(
            f"{path}: the content's SHA-256 is {digest[:12]}…, the name says {path.name[:12]}…; "
            "the segment is damaged. Remove it: the next era-embed encodes only its rows again."
        )


def check_vectors(
    vectors: FloatArray, dtype: np.dtype[Any], name_of: Callable[[int], str], encoder: str
) -> Array:
    """Convert vectors for storage, refusing what must never be stored.

    Args:
        vectors: (n, d) float32.
        dtype: float16 or float32.
        name_of: names row i for a message.
        encoder: the encoder's name, for a message.

    Returns:
        (n, d) array of ``dtype``.

    Raises:
        EncoderError: a row is not finite (also: too large for float16), or all zero.
    """
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(vectors, dtype=dtype)
    finite = np.isfinite(stored).all(axis=1)
    bad = np.flatnonzero(~finite | ~stored.any(axis=1))
    if not len(bad):
        return stored
    row = int(bad[0])
    others = f" ({len(bad)} such rows in this batch)" if len(bad) > 1 else ""
    if np.isfinite(vectors[row]).all() and not finite[row]:
        what, mend = "values too large for float16", "Store with --dtype float32."
    elif not finite[row]:
        what, mend = "NaN or infinite values", "Nothing of it is stored. Look at that text."
    elif vectors[row].any():
        what, mend = "values too small for float16", "Store with --dtype float32."
    else:
        what, mend = "a vector of zeros", "No direction can be compared; remove or mend that text."
    raise EncoderError(f"{encoder} returned {what} for {name_of(row)}{others}. {mend}")


class KeyIndex:
    """Finds rows by key: all keys of some segments, sorted once, looked up in bulk.

    Args:
        segments: in order of preference; of a repeated key the first segment's row counts.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = list(segments)
        sizes = [len(segment.keys) for segment in segments]
        keys = np.concatenate([s.keys for s in segments]) if segments else np.empty((0, 16), "u1")
        high, low = _halves(keys)
        order = np.lexsort((np.arange(len(keys)), low, high))
        first = np.ones(len(order), dtype=bool)
        first[1:] = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
        order = order[first]
        self._high, self._low = high[order], low[order]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._segment_of = np.searchsorted(starts, order, side="right") - 1
        self._row_of = order - starts[self._segment_of]

    def __len__(self) -> int:
        """Number of distinct keys."""
        return len(self._high)

    def positions(self, keys: Keys) -> IntArray:
        """Where each key stands in the index; -1 for a key that is not there.

        Args:
            keys: (n, 16) uint8.

        Returns:
            (n,) int64.
        """
        high, low = _halves(keys)
        at = np.searchsorted(self._high, high, side="left")
        found = np.full(len(keys), -1, dtype=np.int64)
        open_rows = np.flatnonzero(at < len(self._high))
        # Two keys may share their first half, however rarely: walk on until the half changes.
        while len(open_rows):
            here = at[open_rows]
            same = self._high[here] == high[open_rows]
            hit = same & (self._low[here] == low[open_rows])
            found[open_rows[hit]] = here[hit]
            at[open_rows] += 1
            open_rows = open_rows[same & ~hit & (here + 1 < len(self._high))]
        return found

    def read(self, positions: IntArray, out: FloatArray) -> None:
        """Copy the vectors at ``positions`` (n,) into ``out`` (n, d) float32, in that order."""
        segment_of, row_of = self._segment_of[positions], self._row_of[positions]
        for number in np.unique(segment_of):
            wanted = np.flatnonzero(segment_of == number)
            vectors = self.segments[number].vectors
            for start in range(0, len(wanted), _BLOCK_ROWS):
                part = wanted[start : start + _BLOCK_ROWS]
                rows = row_of[part]
                if rows[-1] - rows[0] == len(rows) - 1 and np.all(np.diff(rows) == 1):
                    out[part] = vectors[rows[0] : rows[-1] + 1]
                else:
                    out[part] = vectors[rows]


def _halves(keys: Keys) -> tuple[Array, Array]:
    words = np.ascontiguousarray(keys).view("<u8").reshape(-1, 2)
    return words[:, 0], words[:, 1]


class StoredEncoder:
    """One encoder's folder in a store: the rows of one role.

    ``spec`` describes the encoder; ``folder`` is where its segments lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.others: list[Path] = []
        """Folders of the same fingerprint under another name, as merging two stores can give."""
        self.spec: StoredSpec = read_encoder_record(folder / "encoder.json")

    def segment_paths(self) -> list[Path]:
        """The committed segments, by name."""
        paths = []
        for folder in (parent / "segments" for parent in (self.folder, *self.others)):
            if folder.is_dir():
                with os_errors("listing", folder):
                    paths += [p for p in folder.iterdir() if _SEGMENT_NAME.fullmatch(p.name)]
        return sorted(paths, key=lambda path: (path.name, path))

    def segments(self, *, check: bool = False) -> list[Segment]:
        """Open all segments, the preferred first: float32 before float16, then by name.

        Args:
            check: compare each content with its digest, too.

        Raises:
            FormatError: a segment is damaged; the message names it.
        """
        for _ in range(10):
            try:
                opened = [
                    _open_segment(path, self.spec.fingerprint, self.spec.dim, check=check)
                    for path in self.segment_paths()
                ]
            except StoreError as error:
                # Another process has just merged small segments into one: look again.
                if isinstance(error.__cause__, FileNotFoundError):
                    continue
                raise
            return sorted(opened, key=lambda s: (s.vectors.dtype != np.float32, s.path.name))
        raise StoreError(
            f"{self.folder}: segments keep vanishing; is another program deleting them?"
        )

    def index(self, *, check: bool = False, dtype: str | None = None) -> KeyIndex:
        """Index all rows, or only those stored as ``dtype``."""
        opened = self.segments(check=check)
        return KeyIndex([s for s in opened if dtype is None or s.vectors.dtype.name == dtype])

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
            out: (n, d) float32 to fill; None makes one.
            check: compare the digest of every segment before trusting it.
            index: one made before, to save building it again.

        Returns:
            (n, d) float32, as the model gave them (not normalised).

        Raises:
            StoreError: some keys are not stored.
            FormatError: a segment is damaged, or a vector is not finite.
        """
        index = index or self.index(check=check)
        positions = index.positions(keys)
        missing = int(np.count_nonzero(positions < 0))
        if missing:
            raise StoreError(
                f"{self.folder.parent.parent}: {missing} of {len(keys)} rows are not encoded by "
                f"{self.spec.label()}. Run era-embed again: it encodes only what is missing."
            )
        if out is None:
            out = np.empty((len(keys), self.spec.dim), dtype=np.float32)
        index.read(positions, out)
        if not np.isfinite(out).all():
            raise FormatError(
                f"{self.folder}: a stored vector is not finite; a segment is damaged. Find it with "
                "sha256sum (a segment's name is its digest) and remove it."
            )
        return out


class SegmentWriter:
    """Commits groups of rows of one encoder as segments, and merges them when done.

    Use as a context manager: leaving it normally merges this writer's own small segments; leaving
    it by an error keeps what was committed.

    Args:
        encoder: where the segments go.
        provenance: JSON that each segment carries.
    """

    merge_bytes = 512 << 20

    def __init__(self, encoder: StoredEncoder, provenance: dict[str, Any]) -> None:
        self.encoder = encoder
        # Two processes that encode the same rows in the same second must not write the same file:
        # the first to merge would take it away from the other.
        self._provenance = {**provenance, "writer": uuid.uuid4().hex[:12]}
        self._written: list[Path] = []
        self._folder = encoder.folder / "segments"
        with os_errors("creating", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(self._folder)

    def __enter__(self) -> SegmentWriter:
        """Give itself."""
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        """Merge this writer's segments unless an error is on its way."""
        if kind is None:
            self._merge()

    def commit(self, keys: Keys, vectors: Array) -> Path:
        """Seal one group of rows.

        Args:
            keys: (n, 16) uint8, distinct, n >= 1.
            vectors: (n, d) float16 or float32, already checked (``check_vectors``).

        Returns:
            The segment's path.

        Raises:
            StoreError: it cannot be written; nothing is left behind.
            FormatError: what was read back differs from what was written.
        """
        path = self._seal(keys, vectors, self._provenance)
        self._written.append(path)
        return path

    def _seal(self, keys: Keys, vectors: Array, provenance: dict[str, Any]) -> Path:
        spec = self.encoder.spec
        if vectors.shape != (len(keys), spec.dim) or keys.shape[1:] != (16,) or not len(keys):
            raise ValueError(f"keys {keys.shape} and vectors {vectors.shape}, dim {spec.dim}")
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        note = canonical_json({**provenance, "created": created})
        if len(note) > _PROVENANCE_LIMIT:
            note = canonical_json({"created": created, "note": "provenance too long"})
        attributes: dict[str, int | str] = {
            "format": SEGMENT_FORMAT,
            "version": VERSION,
            "fingerprint": spec.fingerprint,
            "count": len(keys),
            "dim": spec.dim,
            "dtype": vectors.dtype.name,
            "created_by": note.decode("utf-8"),
        }
        with staged(self._folder, ".h5") as (temporary, commit):
            write_plain(temporary, {"keys": keys, "vectors": vectors}, attributes)
            back = _open_segment(temporary, spec.fingerprint, spec.dim, check=False)
            if not (np.array_equal(back.keys, keys) and np.array_equal(back.vectors, vectors)):
                raise FormatError(f"{temporary}: read back other bytes than were written.")
            path: Path = commit(f"{sha256_file(temporary)}.h5")
            return path

    def _merge(self) -> None:
        """Replace this writer's segments by one, where they are several and small enough."""
        paths, self._written = self._written, []
        if len(paths) < 2:
            return
        spec = self.encoder.spec
        opened = [_open_segment(path, spec.fingerprint, spec.dim, check=True) for path in paths]
        same_dtype = len({s.vectors.dtype for s in opened}) == 1
        if not same_dtype or sum(s.vectors.nbytes for s in opened) > self.merge_bytes:
            return
        keys = np.concatenate([s.keys for s in opened])
        vectors = np.concatenate([s.vectors for s in opened])
        merged = self._seal(keys, vectors, {**self._provenance, "merged": len(paths)})
        for path in paths:
            if path != merged:
                with os_errors("removing", path):
                    path.unlink(missing_ok=True)


class Store:
    """A folder of encoders and collections (docs/format.md).

    Open one with ``Store.open`` or ``Store.create``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open an existing store.

        Raises:
            StoreError: there is none.
            FormatError: it is of a newer version or damaged.
        """
        path = Path(path)
        if not (path / "store.json").is_file():
            raise StoreError(
                f"{path}: not a store (no store.json). era-embed makes one; check the path."
            )
        read_json(path / "store.json", FORMAT, VERSION)
        return cls(path)

    @classmethod
    def create(cls, path: Path | str) -> Store:
        """Open a store, making it first where there is nothing yet.

        Raises:
            StoreError: the folder holds something else, or cannot be written.
        """
        path = Path(path)
        if not (path / "store.json").exists():
            with os_errors("creating the store", path):
                path.mkdir(parents=True, exist_ok=True)
                names = {p.name for p in path.iterdir() if not p.name.startswith(".")}
            strangers = sorted(names - {"encoders", "collections", "pairs", "store.json"})
            if strangers:
                raise StoreError(
                    f"{path}: holds other files ({strangers[0]}, …) and is not a store. "
                    "Give an empty or new folder."
                )
            write_json(path / "store.json", {"format": FORMAT, "version": VERSION})
        store = cls.open(path)
        with os_errors("creating the store", path):
            for folder in ("encoders", "collections"):
                (path / folder).mkdir(exist_ok=True)
        return store

    def encoders(self) -> list[StoredEncoder]:
        """All encoders in the store, by name. Raises ``FormatError`` where one is damaged."""
        folder = self.path / "encoders"
        if not folder.is_dir():
            return []
        found: list[StoredEncoder] = []
        with os_errors("listing", folder):
            names = sorted(p.name for p in folder.iterdir() if _ENCODER_NAME.fullmatch(p.name))
        for name in names:
            # Without encoder.json a writer died before its first row, or is just starting.
            if not (folder / name / "encoder.json").is_file():
                continue
            encoder = StoredEncoder(folder / name)
            if not name.endswith(f"-{encoder.spec.role.value}-{encoder.spec.fingerprint[:12]}"):
                raise FormatError(
                    f"{folder / name}: holds the encoder {encoder.spec.label()}, which its name "
                    "contradicts. Rename it back or remove it."
                )
            known = next((e for e in found if e.spec.fingerprint == encoder.spec.fingerprint), None)
            if known is not None and known.spec.dim == encoder.spec.dim:
                known.others.append(encoder.folder)
            else:
                found.append(encoder)
        return found

    def find_encoder(self, fingerprint: str) -> StoredEncoder | None:
        """The encoder of a fingerprint, or None."""
        return next((e for e in self.encoders() if e.spec.fingerprint == fingerprint), None)

    def encoder(self, fingerprint: str) -> StoredEncoder:
        """The encoder of a fingerprint.

        Raises:
            FingerprintError: the store holds no vectors of it.
        """
        found = self.find_encoder(fingerprint)
        if found is None:
            have = ", ".join(e.spec.label() for e in self.encoders()) or "none"
            raise FingerprintError(
                f"{self.path}: no vectors of fingerprint {fingerprint[:12]}; it holds {have}. "
                "Encode with that model and template, or use the store it was fitted on."
            )
        return found

    def add_encoder(self, spec: EncoderSpec, role: Role, dim: int) -> StoredEncoder:
        """Make (or find) the folder of one role of an encoder.

        Raises:
            EncoderError: the store has this fingerprint with another dimension.
            StoreError: the folder cannot be written.
        """
        fingerprint = spec.fingerprint(role)
        folder = self.path / "encoders" / f"{spec.name}-{role.value}-{fingerprint[:12]}"
        known = self.find_encoder(fingerprint)
        if known is None:
            with os_errors("creating", folder):
                folder.mkdir(parents=True, exist_ok=True)
            remove_stale_temporaries(folder)
            write_json(folder / "encoder.json", encoder_record(spec, role, dim))
            known = StoredEncoder(folder)
        if known.spec.dim != dim:
            raise EncoderError(
                f"{spec.name} gave vectors of {dim} dimensions, but the store has {known.spec.dim} "
                "for the same files and settings. The model or its library is broken; nothing was "
                "stored."
            )
        return known

    def collection_paths(self) -> Iterator[tuple[str, str, Path]]:
        """Yield (name, 12-digit version, path) of every stored collection."""
        folder = self.path / "collections"
        if not folder.is_dir():
            return
        with os_errors("listing", folder):
            paths = sorted(folder.iterdir())
        for path in paths:
            match = _COLLECTION_NAME.fullmatch(path.name)
            if match:
                yield match[1], match[2], path

    def collection(self, name: str) -> Collection:
        """Read a collection by name, or by name and version (``toy-0123456789ab``).

        Of several versions of a name, the one embedded last.

        Raises:
            StoreError: there is none of that name.
            FormatError: its file is damaged.
        """
        known = list(self.collection_paths())
        paths = [p for n, version, p in known if name in (n, f"{n}-{version}")]
        if not paths:
            have = ", ".join(sorted({n for n, _, _ in known})) or "none"
            raise StoreError(f"{self.path}: no collection '{name}'; it holds: {have}.")
        read = [(path, read_collection(path)) for path in paths]
        for path, collection in read:
            if path.name != f"{collection.name}-{collection.version}.h5":
                raise FormatError(f"{path}: holds {collection.name}-{collection.version}.")
        return max((c for _, c in read), key=lambda c: (c.created, c.digest))

    def add_pair(self, collection: Collection, sides: Mapping[str, str]) -> None:
        """Record that a collection was embedded for a pair of encoders.

        Args:
            collection: as stored.
            sides: ``query``, ``small_query``, ``document`` and ``align`` to fingerprints.

        Raises:
            StoreError: it cannot be written.
        """
        folder = self.path / "pairs"
        with os_errors("creating", folder):
            folder.mkdir(exist_ok=True)
        remove_stale_temporaries(folder)
        record = {"format": PAIR_FORMAT, "version": VERSION, "collection": collection.digest}
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        name = f"{collection.digest[:12]}-{json_digest(dict(sides))[:12]}.json"
        write_json(folder / name, {**record, "sides": dict(sides), "created": created})

    def pairs(self, collection: Collection) -> list[dict[str, str]]:
        """The pairs that a collection was embedded for: side to fingerprint, the newest first.

        Raises:
            FormatError: a record is damaged.
        """
        folder = self.path / "pairs"
        if not folder.is_dir():
            return []
        found: list[tuple[str, dict[str, str]]] = []
        with os_errors("listing", folder):
            paths = sorted(p for p in folder.iterdir() if _PAIR_NAME.fullmatch(p.name))
        for path in paths:
            record = read_json(path, PAIR_FORMAT, VERSION)
            sides = record.get("sides")
            named = path.name[13:25]
            if (
                not isinstance(sides, dict)
                or set(sides) != set(SIDES)
                or (json_digest(sides)[:12] != named)
            ):
                raise FormatError(f"{path}: damaged or edited. Remove it and run era-embed again.")
            if record.get("collection") == collection.digest:
                found.append((str(record.get("created", "")), {s: str(sides[s]) for s in SIDES}))
        return [sides for _, sides in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def versions(self, name: str) -> list[str]:
        """The stored versions of a collection's name."""
        return [version for n, version, _ in self.collection_paths() if n == name]

    def add_collection(self, texts: TextCollection) -> Collection:
        """Store a collection's ids, keys and judgements. Raises ``StoreError``."""
        folder = self.path / "collections"
        with os_errors("creating", folder):
            folder.mkdir(exist_ok=True)
        remove_stale_temporaries(folder)
        return write_collection(folder, texts)

"""The store: vectors in immutable segments that any number of processes read and write.

In: keys and vectors from ``embed``, or anyone's own. Out: the rows that were asked for, as float32,
in the order they were asked for. docs/format.md is the specification; nothing is ever changed in
place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_cache.collection.keys import distinct_rows, row_keys
from era_cache.collection.records import Collection, TextCollection
from era_cache.collection.stored import LAST_GENERATION, read_stated, write_collection
from era_cache.disk.digests import now
from era_cache.disk.files import make_folder, os_errors, remove_stale_temporaries
from era_cache.disk.json_files import read_record, write_record
from era_cache.errors import EncoderError, FingerprintError, StoreError
from era_cache.store.encoder_record import EncoderSpec, write_encoder_record
from era_cache.store.names import (
    DATA_FOLDERS,
    ENCODER_NAME,
    PAIR_NAME,
    encoder_folder_name,
    refuse_strangers,
)
from era_cache.store.records import Side, StoredPair, StoreRecord, read_pair
from era_cache.store.store_files import StoreFiles, looks_like_url
from era_cache.store.stored_encoder import StoredEncoder
from era_cache.store.versions import conflict_of, next_generation
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import FloatArray, Keys, Role

if TYPE_CHECKING:
    import torch

__all__ = ["Store"]


class Store(StoreFiles):
    """A folder of encoders and collections (docs/format.md).

    Open one with ``Store.open`` or ``Store.create``.
    """

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open an existing store.

        Raises:
            StoreError: there is none.
            FormatError: it is of a newer version or damaged.
        """
        if looks_like_url(str(path)):
            raise StoreError(
                f"{path}: a URL, where a folder is needed. era-store pull URL FOLDER brings a "
                "store here; in Python, era_cache.open_store opens URLs, too."
            )
        path = Path(path)
        if not (path / "store.json").is_file():
            raise StoreError(
                f"{path}: not a store (no store.json). era-embed makes one; check the path."
            )
        read_record(path / "store.json", StoreRecord)
        return cls(path)

    @classmethod
    def if_there(cls, path: Path) -> Store | None:
        """Open a store; None where there is none, or another process just begins it.

        Raises ``StoreError`` where the folder holds something else, ``FormatError`` as ``open``.
        """
        if (path / "store.json").exists():
            return cls.open(path)
        if path.is_dir():
            with os_errors("creating the store", path):
                refuse_strangers(path, [entry.name for entry in path.iterdir()])
        return None

    @classmethod
    def create(cls, path: Path | str) -> Store:
        """Open a store, making it first where there is nothing yet.

        Raises ``StoreError`` where the folder holds something else, or cannot be written.
        """
        path = Path(path)
        if cls.if_there(path) is None:
            make_folder(path, may_be_link=True)
            write_record(path / "store.json", StoreRecord())
        store = cls.open(path)
        for folder in DATA_FOLDERS:
            make_folder(path / folder)
        remove_stale_temporaries(path)
        return store

    def _stored_encoder(self, name: str) -> StoredEncoder | None:
        # Without encoder.json a writer died before its first row, or is just starting.
        there = (self.path / "encoders" / name / "encoder.json").is_file()
        return self._made_encoder(name) if there else None

    def _made_encoder(self, name: str) -> StoredEncoder:
        return StoredEncoder(self.path / "encoders" / name)

    def encoders(self) -> list[StoredEncoder]:
        """All encoders in the store, by name. Raises ``FormatError`` where one is damaged."""
        found: list[StoredEncoder] = []
        for name in self.names("encoders", ENCODER_NAME, folders=True):
            encoder = self._stored_encoder(name)
            if encoder is None:
                continue
            known = next((e for e in found if e.spec.fingerprint == encoder.spec.fingerprint), None)
            if known is not None and known.spec.dim == encoder.spec.dim:
                known.others.append(encoder.folder)
            else:
                found.append(encoder)
        return found

    def find_encoder(self, fingerprint: str) -> StoredEncoder | None:
        """The encoder of a fingerprint, or None."""
        return next((e for e in self.encoders() if e.spec.fingerprint == fingerprint), None)

    def encoder(self, name: str, role: Role | None = None) -> StoredEncoder:
        """The encoder of a fingerprint, of the start of one, or of a name.

        Args:
            name: at least 4 digits of a fingerprint, or the encoder's name.
            role: which of its roles; None where only one is stored.

        Raises:
            FingerprintError: the store holds no vectors of it, or of several that fit.
        """
        found = [
            e
            for e in self.encoders()
            if role in (None, e.spec.role)
            and (e.spec.name == name or (len(name) >= 4 and e.spec.fingerprint.startswith(name)))
        ]
        if len(found) > 1:
            fitting = ", ".join(e.spec.label() for e in found)
            raise FingerprintError(
                f"{self.label}: '{name}' fits several encoders: {fitting}. Give the start of a "
                "fingerprint."
            )
        if not found:
            have = ", ".join(e.spec.label() for e in self.encoders()) or "none"
            raise FingerprintError(
                f"{self.label}: no vectors of '{name[:24]}'; it holds {have}. "
                "Encode with that model and template, or use the store it was fitted on."
            )
        return found[0]

    def add_encoder(self, spec: EncoderSpec, role: Role, dim: int) -> StoredEncoder:
        """Make (or find) the folder of one role of an encoder.

        Raises:
            EncoderError: the store has this fingerprint with another dimension.
            StoreError: the folder cannot be written.
        """
        fingerprint = spec.fingerprint(role)
        name = encoder_folder_name(spec.name, role, fingerprint)
        folder = self.path / "encoders" / name
        known = self.find_encoder(fingerprint)
        if known is None:
            make_folder(folder)
            remove_stale_temporaries(folder)
            write_encoder_record(folder, spec, role, dim)
            self.publish(folder / "encoder.json")
            known = self._made_encoder(name)
        if known.spec.dim != dim:
            raise EncoderError(
                f"{spec.name} gave vectors of {dim} dimensions, but the store has {known.spec.dim} "
                "for the same files and settings. The model or its library is broken; nothing was "
                "stored."
            )
        return known

    def collection(self, name: str) -> Collection:
        """Read a collection by name, or by name and version: see ``newest``."""
        return self.read_collection(self.newest(name))

    def conflict(self, name: str) -> str:
        """What is doubtful about the newest version of a name, as a sentence; empty if nothing is.

        Raises:
            FormatError: a version is damaged.
        """
        paths = [path for n, _, path in self.collection_paths() if n == name]
        return conflict_of([self.read_collection(path) for path in paths])

    def add_pair(self, collection: Collection, sides: Mapping[Side, str]) -> None:
        """Record that a collection was embedded for a pair of encoders.

        Args:
            collection: as stored.
            sides: ``query``, ``small_query``, ``document`` and ``align`` to fingerprints.

        Raises ``StoreError`` where it cannot be written.
        """
        folder = self.path / "pairs"
        make_folder(folder)
        remove_stale_temporaries(folder)
        created = now()
        known = [one for one in self._pairs(collection) if one.sides != sides]
        pair = StoredPair(
            collection=collection.digest,
            sides=dict(sides),
            created=created,
            generation=min(1 + max((one.generation for one in known), default=0), LAST_GENERATION),
        )
        write_record(folder / pair.file_name(), pair)
        self.publish(folder / pair.file_name())

    def pairs(self, collection: Collection) -> list[dict[Side, str]]:
        """The pairs that a collection was embedded for: side to fingerprint, the newest first.

        Raises:
            FormatError: a record is damaged.
        """
        found = sorted(
            self._pairs(collection), key=lambda one: (one.generation, one.created), reverse=True
        )
        return [pair.sides for pair in found]

    def _pairs(self, collection: Collection) -> list[StoredPair]:
        names = self.names("pairs", PAIR_NAME)
        read = (read_pair(self.file(f"pairs/{name}")) for name in names)
        return [pair for pair in read if pair.collection == collection.digest]

    def add_collection(self, texts: TextCollection) -> Collection:
        """Store a collection's ids, keys and judgements. Raises ``StoreError``."""
        folder = self.path / "collections"
        make_folder(folder)
        remove_stale_temporaries(folder)
        paths = [path for name, _, path in self.collection_paths() if name == texts.name]
        known = [read_stated(self._brought(path)) for path in paths]
        made = write_collection(folder, texts, lambda digest: next_generation(known, digest))
        self.publish(folder / f"{made.name}-{made.version}.h5")
        return made

    def vectors(
        self,
        encoder: StoredEncoder | str,
        keys: Keys,
        *,
        out: FloatArray | None = None,
        device: str | None = None,
        check: bool = False,
    ) -> FloatArray | torch.Tensor:
        """Read rows of one encoder by key.

        Args:
            encoder: one of ``encoders()``, or its name or fingerprint.
            keys: (n, 16) uint8 in the order wanted, as a collection holds them or ``row_keys``
                makes them.
            out: (n, d) float32 array to fill.
            device: name of a torch device; the result is then a tensor there.
            check: compare the digest of every segment before trusting it.

        Returns:
            (n, d) float32: an array, or a tensor where a device is named.

        Raises:
            FingerprintError: there is no such encoder.
            StoreError: some keys are not stored.
            FormatError: a segment is damaged.
        """
        stored = self.encoder(encoder) if isinstance(encoder, str) else encoder
        rows = stored.vectors(keys, out=out, check=check)
        if device is None:
            return rows
        import torch

        return torch.from_numpy(rows).to(device)

    def writer(
        self,
        spec: EncoderSpec,
        role: Role,
        dim: int,
        *,
        dtype: str = "float16",
        provenance: Mapping[str, Any] | None = None,
    ) -> SegmentWriter:
        """Open a writer of one role of an encoder; a context manager.

        Args:
            spec: the encoder.
            role: of the rows.
            dim: values of a row.
            dtype: ``float32``, ``float16`` or ``int8``, in which rows are stored.
            provenance: JSON kept with the rows: who made them, with what.

        Raises as ``add_encoder``.
        """
        return SegmentWriter(self.add_encoder(spec, role, dim), dict(provenance or {}), dtype=dtype)

    def put(
        self,
        spec: EncoderSpec,
        role: Role,
        texts: Sequence[str],
        vectors: FloatArray,
        *,
        instructions: Sequence[str] | None = None,
        dtype: str = "float16",
        provenance: Mapping[str, Any] | None = None,
    ) -> int:
        """Store vectors of texts, as far as the store lacks them.

        Args:
            spec: the encoder that made them.
            role: of all the texts.
            texts: n texts, as they were before the encoder's template.
            vectors: (n, d) floating point, one row for each text.
            instructions: n instructions of queries, or None.
            dtype: ``float32``, ``float16`` or ``int8``, in which rows are stored.
            provenance: JSON kept with the rows.

        Returns:
            How many rows were stored; one that is there as exactly stays as it is.

        Raises ``EncoderError`` for a row that is not finite or all zero, ``StoreError``.
        """
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(f"{len(texts)} texts, but vectors of shape {vectors.shape}")
        keys = row_keys(role, texts, instructions)
        with self.writer(
            spec, role, vectors.shape[1], dtype=dtype, provenance=provenance
        ) as writer:
            known = self.encoder(spec.fingerprint(role)).index()
            new = known.missing(keys, dtype)
            if len(new):
                writer.write(keys[new], vectors[new], lambda row: f"text number {new[row]}")
            return len(distinct_rows(keys[new]))

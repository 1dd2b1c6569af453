"""Small stores for tests that move them about: a few rows, several segments, no model."""

from __future__ import annotations

import numpy as np
from hash_encoder import HashEncoder

from era_cache.collection.beir import read_beir
from era_cache.collection.keys import row_keys
from era_cache.store.encoder_record import EncoderSpec
from era_cache.store.precision import check_vectors
from era_cache.store.records import ROLES
from era_cache.store.store import Store
from era_cache.store.write_segments import SegmentWriter
from era_cache.types import Role

DIM = 3
SPEC = HashEncoder(DIM).spec


def numbered(*numbers):
    """Distinct keys, (n, 16) uint8."""
    return row_keys(Role.DOCUMENT, [f"text {number}" for number in numbers])


def rows(*numbers, dtype="float32", add=0.0):
    """A recognisable vector for each number; not of unit length."""
    return np.array([[n + add, n + 0.5, -1] for n in numbers], dtype=dtype)


def write(encoder, *numbers, dtype="float32", add=0.0):
    """Write a segment of the rows of some numbers; gives its path."""
    stored = check_vectors(rows(*numbers, add=add), dtype, str, "x")
    return SegmentWriter(encoder, {"device": "x"}).commit(numbered(*numbers), stored)


def spec_of(name="model", model="model", role=Role.DOCUMENT):
    """An encoder; ``model`` alone decides its fingerprint."""
    return EncoderSpec(name, {"kind": "test", "model": model}, {role: "{text}"}, {"path": name})


def add_rows(path, groups, *, name="model", model=None, role=Role.DOCUMENT, dim=DIM, add=0.0):
    """Write each group of numbers as one segment; gives the segments' paths."""
    encoder = Store.create(path).add_encoder(spec_of(name, model or name, role), role, dim)
    writer = SegmentWriter(encoder, {})
    paths = []
    for group in groups:
        keys = row_keys(role, [f"text {number}" for number in group])
        vectors = np.array([[n + add] * (dim - 1) + [1] for n in group], dtype="float32")
        paths.append(writer.commit(keys, vectors))
    return paths


def add_collection(path, toy, name="toy"):
    """Store the toy collection and a pair; gives the paths of both files."""
    store = Store.create(path)
    collection = store.add_collection(read_beir(toy)._replace(name=name))
    store.add_pair(collection, dict.fromkeys(ROLES, "0" * 64))
    (collected,) = (path / "collections").glob(f"{name}-*.h5")
    (pair,) = (path / "pairs").glob(f"{collection.version}-*.json")
    return collected, pair


def files_of(path):
    """Every file of a store except the key indexes, which are rebuilt at will: path to content."""
    return {
        found.relative_to(path).as_posix(): found.read_bytes()
        for found in sorted(path.rglob("*"))
        if found.is_file() and found.parent.name != "index"
    }


def rows_of(path):
    """All rows as readers see them: (fingerprint, key) to the vector's bytes."""
    rows = {}
    for encoder in Store.open(path).encoders():
        keys = np.concatenate([np.empty((0, 16), "u1"), *(s.keys for s in encoder.segments())])
        vectors = encoder.vectors(keys)
        for key, vector in zip(keys, vectors, strict=True):
            rows[encoder.spec.fingerprint, key.tobytes()] = vector.tobytes()
    return rows


def damage(path, at=-1):
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)

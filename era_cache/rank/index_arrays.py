"""Approximate indexes as arrays, and back: what can be kept without the library's own files.

In: an index that faiss has built. Out: arrays of numbers, none of them a vector of a document; and
from such arrays and the documents the index again, with the same answers. Arrays may come from a
stranger: each number that faiss would follow is checked first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from era_cache.errors import FormatError
from era_cache.types import Array, FloatArray

if TYPE_CHECKING:
    import torch

    from era_cache.rank.corpus import Corpus

__all__ = ["BLOCK_ROWS", "arrays_of", "block_array", "index_of"]

_WIDEST = 1 << 10
"""Neighbours of a document on a level, at most."""
BLOCK_ROWS = 1 << 16
"""Documents that are handed to faiss at a time."""
_NAMES: dict[str, dict[str, type]] = {
    "ivf": {"centres": np.float32, "lists": np.int32},
    "hnsw": {"levels": np.int32, "offsets": np.uint64, "neighbours": np.int32, "entry": np.int64},
    "pq": {
        "centres": np.float32,
        "codebook": np.float32,
        "lists": np.int32,
        "codes": np.uint8,
    },
}


def arrays_of(index: Any, kind: str) -> dict[str, Array]:
    """What makes an index of a kind, besides the documents.

    Args:
        index: of faiss, over n documents of d dimensions.
        kind: ``ivf``, ``hnsw`` or ``pq``.

    Returns:
        ``ivf``: ``centres`` (c, d) float32 and ``lists`` (n,) int32, the list of each document.
        ``pq``: these, ``codebook`` (16 m, d / m) float32 and ``codes`` (n, m / 2) uint8.
        ``hnsw``: ``levels`` (n,) int32, ``offsets`` (n + 1,) uint64, ``neighbours`` int32, -1 for
        none, and ``entry`` (1,) int64.
    """
    import faiss

    if kind == "hnsw":
        graph = index.hnsw
        return {
            "levels": faiss.vector_to_array(graph.levels),
            "offsets": faiss.vector_to_array(graph.offsets),
            "neighbours": faiss.vector_to_array(graph.neighbors),
            "entry": np.array([graph.entry_point], dtype=np.int64),
        }
    lists = index.invlists
    if kind == "pq":
        lists = faiss.ArrayInvertedLists(index.nlist, index.code_size)
        index.orig_invlists = lists
        index.reconstruct_orig_invlists()
        index.orig_invlists = None
    found: dict[str, Array] = {
        "centres": index.quantizer.reconstruct_n(0, index.nlist),
        "lists": np.empty(index.ntotal, dtype=np.int32),
    }
    if kind == "pq":
        shape = index.pq.M * index.pq.ksub, index.pq.dsub
        found["codebook"] = faiss.vector_to_array(index.pq.centroids).reshape(shape)
        found["codes"] = np.empty((index.ntotal, index.code_size), dtype=np.uint8)
    for number in range(index.nlist):
        size = lists.list_size(number)
        if not size:
            continue
        rows = faiss.rev_swig_ptr(lists.get_ids(number), size)
        found["lists"][rows] = number
        if kind == "pq":
            codes = faiss.rev_swig_ptr(lists.get_codes(number), size * index.code_size)
            found["codes"][rows] = codes.reshape(size, -1)
    return found


def index_of(kind: str, arrays: Mapping[str, Array], corpus: Corpus) -> Any:
    """An index over a corpus from what makes it.

    Args:
        kind: ``ivf``, ``hnsw`` or ``pq``.
        arrays: as ``arrays_of`` gives them.
        corpus: (n, d) float32, the documents that it was built over.

    Raises:
        FormatError: the arrays are none of such an index over so many documents.
    """
    names = _NAMES[kind]
    if set(arrays) != set(names):
        raise FormatError(f"an index of kind {kind} has {sorted(names)}, not {sorted(arrays)}")
    for name, dtype in names.items():
        if arrays[name].dtype != np.dtype(dtype):
            raise FormatError(f"'{name}' of an index has dtype {arrays[name].dtype}")
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        return _graph(held, corpus) if kind == "hnsw" else _by_centres(kind, held, corpus)
    except RuntimeError as error:  # what faiss refuses
        raise FormatError(f"the index cannot be made of its arrays: {error}") from error


def _by_centres(kind: str, held: Mapping[str, Array], corpus: Corpus) -> Any:
    n, dim = corpus.shape
    centres = held["centres"]
    sound = (
        centres.ndim == 2
        and 0 < len(centres) <= n
        and centres.shape[1] == dim
        and np.isfinite(centres).all()
        and held["lists"].shape == (n,)
        and _within(held["lists"], 0, len(centres))
    )
    if not sound:
        raise FormatError("the lists of an index do not fit its documents")
    return _coded(held, n) if kind == "pq" else _listed(held, corpus)


def _listed(arrays: Mapping[str, Array], corpus: Corpus) -> Any:
    import faiss

    centres = arrays["centres"]
    count, dim = centres.shape
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, count, faiss.METRIC_INNER_PRODUCT)
    index.quantizer.add(centres)
    index.is_trained = True
    for start in range(0, len(corpus), BLOCK_ROWS):
        block = block_array(corpus[start : start + BLOCK_ROWS])
        lists = arrays["lists"][start : start + len(block)].astype(np.int64)
        index.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(lists))
    return index


def _coded(arrays: Mapping[str, Array], n: int) -> Any:
    import faiss

    centres, codebook, codes = (arrays[name] for name in ("centres", "codebook", "codes"))
    count, dim = centres.shape
    parts = codebook.shape[0] // 16
    sound = (
        parts > 0
        and dim % parts == 0
        and codebook.shape == (16 * parts, dim // parts)
        and np.isfinite(codebook).all()
        and codes.shape == (n, (parts + 1) // 2)
    )
    if not sound:
        raise FormatError("the codes of an index do not fit its documents")
    plain: Any = faiss.IndexIVFPQ(
        faiss.IndexFlatIP(dim), dim, count, parts, 4, faiss.METRIC_INNER_PRODUCT
    )
    plain.by_residual = False
    plain.quantizer.add(centres)
    faiss.copy_array_to_vector(codebook.reshape(-1), plain.pq.centroids)
    plain.is_trained = True
    order = np.argsort(arrays["lists"], kind="stable")
    ends = np.cumsum(np.bincount(arrays["lists"], minlength=count))
    for number, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        rows = order[start:end]
        mine = np.ascontiguousarray(codes[rows])
        plain.invlists.add_entries(number, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(mine))
    plain.ntotal = n
    packed: Any = faiss.IndexIVFPQFastScan(plain)  # holds on to the plain one, whose codes are done
    packed.orig_invlists = None
    plain.reset()
    return packed


def _graph(arrays: Mapping[str, Array], corpus: Corpus) -> Any:
    import faiss

    n, dim = corpus.shape
    levels, offsets, neighbours = (arrays[name] for name in ("levels", "offsets", "neighbours"))
    width = _width(levels, offsets)
    if not (2 <= width <= _WIDEST and _walkable(arrays, n, width)):
        raise FormatError("the graph of an index does not fit its documents")
    index: Any = faiss.IndexHNSWFlat(dim, width, faiss.METRIC_INNER_PRODUCT)
    graph = index.hnsw
    places = faiss.vector_to_array(graph.cum_nneighbor_per_level)
    # Where the neighbours of a level begin is looked up there, for as many levels as it knows.
    if levels.max() >= len(places) or np.any(places[1:] != width * np.arange(2, len(places) + 1)):
        raise FormatError("the graph of an index has more levels than a search can walk")
    storage = faiss.downcast_index(index.storage)
    for start in range(0, n, BLOCK_ROWS):
        storage.add(block_array(corpus[start : start + BLOCK_ROWS]))
    faiss.copy_array_to_vector(levels, graph.levels)
    faiss.copy_array_to_vector(offsets, graph.offsets)
    faiss.copy_array_to_vector(neighbours, graph.neighbors)
    graph.entry_point, graph.max_level = int(arrays["entry"][0]), int(levels.max()) - 1
    index.ntotal = n
    return index


def _width(levels: Array, offsets: Array) -> int:
    """Neighbours of a document above the lowest level, where it has twice as many; 0 for none."""
    if levels.ndim != 1 or not len(levels) or offsets.shape != (len(levels) + 1,):
        return 0
    lowest = np.flatnonzero(levels == 1)
    if not len(lowest):
        return 0
    return (int(offsets[lowest[0] + 1]) - int(offsets[lowest[0]])) // 2


def _walkable(arrays: Mapping[str, Array], n: int, width: int) -> bool:
    """Whether every step that a search can take on a graph stays in it.

    A document of l levels has twice ``width`` places for neighbours on the lowest and ``width`` on
    each other one; a neighbour on a level must have that level itself.
    """
    levels, offsets, neighbours = (arrays[name] for name in ("levels", "offsets", "neighbours"))
    entry = arrays["entry"]
    if levels.shape != (n,) or not _within(levels, 1, 64) or neighbours.ndim != 1:
        return False
    wanted = np.concatenate([[0], np.cumsum(width * (levels.astype(np.int64) + 1))])
    if not (np.array_equal(offsets, wanted) and len(neighbours) == wanted[-1]):
        return False
    if entry.shape != (1,) or not 0 <= entry[0] < n or levels[entry[0]] != levels.max():
        return False
    if not _within(neighbours, -1, n):
        return False
    for level in range(1, int(levels.max())):
        rows = np.flatnonzero(levels > level)
        first = wanted[rows] + width * (level + 1)
        near = neighbours[first[:, None] + np.arange(width)]
        if np.any(levels[near[near >= 0]] <= level):
            return False
    return True


def _within(values: Array, low: int, high: int) -> bool:
    return not len(values) or (int(values.min()) >= low and int(values.max()) < high)


def block_array(rows: torch.Tensor) -> FloatArray:
    """Rows as faiss takes them."""
    found: FloatArray = rows.detach().cpu().contiguous().numpy()
    return found

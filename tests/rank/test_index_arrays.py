"""Approximate indexes as arrays: the same answers again, and nothing followed out of bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from planted import normal

from era_cache.errors import FormatError
from era_cache.fitting.adapter import unit
from era_cache.rank.approximate import KINDS, ApproximateIndex
from era_cache.rank.corpus import HalfRows
from era_cache.types import Array

N = 3000


def documents(dim: int = 24) -> torch.Tensor:
    centres = normal(30, dim, seed=1)
    return unit(centres[torch.arange(N) % 30] + 0.5 * normal(N, dim, seed=2))


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, Array]]:
    return {kind: ApproximateIndex(documents(), kind).arrays() for kind in KINDS}


@pytest.mark.parametrize("dim", [24, 25])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_index_from_its_arrays_answers_as_the_one_that_was_built(kind, half, dim) -> None:
    corpus = HalfRows(documents(dim).half()) if half else documents(dim)
    queries = unit(normal(40, dim, seed=3))
    built = ApproximateIndex(corpus, kind, seed=5)
    again = ApproximateIndex(corpus, kind, arrays=built.arrays())
    one, other = built.search(queries, 60), again.search(queries, 60)
    np.testing.assert_array_equal(one.doc_rows, other.doc_rows)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert built.about == again.about
    for name, array in again.arrays().items():
        np.testing.assert_array_equal(array, built.arrays()[name])


def test_what_is_searched_whole_has_nothing_to_keep() -> None:
    assert ApproximateIndex(documents()[:500], "pq").arrays() == {}


def changed(name: str, change: Callable[[Array], Array]) -> Callable[..., None]:
    def apply(arrays: dict[str, Array]) -> None:
        arrays[name] = change(arrays[name].copy())

    return apply


def put(at: int | tuple[int, ...], value: float) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        array[at] = value
        return array

    return change


HOSTILE = {
    "ivf": [
        changed("lists", put(7, -1)),
        changed("lists", put(7, 1 << 30)),
        changed("lists", lambda a: a[:-1]),
        changed("lists", lambda a: a.astype(np.int64)),
        changed("centres", put((0, 0), np.nan)),
        changed("centres", lambda a: a[:, :-1]),
        changed("centres", lambda a: a[:0]),
        changed("centres", lambda a: a.reshape(-1)),
        lambda arrays: arrays.pop("lists"),
        lambda arrays: arrays.update(more=np.zeros(3)),
    ],
    "pq": [
        changed("lists", put(0, 1 << 20)),
        changed("codes", lambda a: a[:-1]),
        changed("codes", lambda a: a[:, :-1]),
        changed("codebook", put((0, 0), np.inf)),
        changed("codebook", lambda a: a[:-1]),
        changed("codebook", lambda a: a[:0]),
        changed("codebook", lambda a: a[:8]),
        changed("codebook", lambda a: a[:, :1]),
        changed("codebook", lambda a: a.reshape(-1)),
    ],
    "hnsw": [
        changed("levels", put(3, 0)),
        changed("levels", put(3, 1 << 20)),
        changed("levels", lambda a: a + 1),
        changed("levels", lambda a: a[:-1]),
        changed("levels", lambda a: a[:0]),
        changed("offsets", put(5, 1 << 60)),
        changed("offsets", lambda a: a[:-1]),
        changed("neighbours", put(11, N)),
        changed("neighbours", put(11, -2)),
        changed("neighbours", lambda a: a[:-1]),
        changed("neighbours", lambda a: a.reshape(1, -1)),
        changed("entry", put(0, N)),
        changed("entry", put(0, -1)),
        changed("entry", lambda a: a[:0]),
    ],
}


@pytest.mark.parametrize(
    ("kind", "change"), [(kind, one) for kind, changes in HOSTILE.items() for one in changes]
)
def test_arrays_that_do_not_fit_are_refused(kind, change, kept) -> None:
    arrays = dict(kept[kind])
    change(arrays)
    with pytest.raises(FormatError):
        ApproximateIndex(documents(), kind, arrays=arrays)


def test_a_graph_that_leads_to_a_document_without_that_level_is_refused(kept) -> None:
    arrays = {name: array.copy() for name, array in kept["hnsw"].items()}
    levels, offsets = arrays["levels"], arrays["offsets"].astype(np.int64)
    high, low = int(np.argmax(levels)), int(np.flatnonzero(levels == 1)[0])
    assert levels[high] > 1
    width = (offsets[low + 1] - offsets[low]) // 2
    arrays["neighbours"][offsets[high] + 2 * width] = low  # its first place on the second level
    with pytest.raises(FormatError, match="graph"):
        ApproximateIndex(documents(), "hnsw", arrays=arrays)


@pytest.mark.parametrize("levels", [12, 63])
def test_a_graph_of_more_levels_than_faiss_can_look_up_is_refused(kept, levels) -> None:
    """It fits together in itself, and would be read beyond the end of a table."""
    arrays = {name: array.copy() for name, array in kept["hnsw"].items()}
    low = int(np.flatnonzero(arrays["levels"] == 1)[0])
    width = int(arrays["offsets"][low + 1] - arrays["offsets"][low]) // 2
    end, more = int(arrays["offsets"][1]), levels - int(arrays["levels"][0])
    arrays["neighbours"] = np.insert(arrays["neighbours"], end, np.full(width * more, -1))
    arrays["levels"][0], arrays["entry"][0] = levels, 0
    arrays["offsets"][1:] += np.uint64(width * more)
    with pytest.raises(FormatError, match="more levels"):
        ApproximateIndex(documents(), "hnsw", arrays=arrays)


@pytest.mark.parametrize("value", [1, 1 << 40, 1 << 62, (1 << 64) - 1])
def test_a_graph_of_an_absurd_width_is_refused(kept, value) -> None:
    arrays = {name: array.copy() for name, array in kept["hnsw"].items()}
    low = int(np.flatnonzero(arrays["levels"] == 1)[0])
    arrays["offsets"][low + 1] = value
    with pytest.raises(FormatError):
        ApproximateIndex(documents(), "hnsw", arrays=arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_other_documents_are_refused(kind, kept) -> None:
    with pytest.raises(FormatError):
        ApproximateIndex(documents()[:-1], kind, arrays=kept[kind])
    if kind != "hnsw":  # a graph has no dimensions: its file says whose it is
        with pytest.raises(FormatError):
            ApproximateIndex(documents(26), kind, arrays=kept[kind])

"""Search: against a brute-force oracle on scores that float32 holds exactly, ties included."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import normal

from era_cache.rank.corpus import HalfRows, ReadRows, products
from era_cache.rank.measures import Ranking
from era_cache.rank.search import search
from era_cache.rank.ties import tie_order


def oracle(
    queries: np.ndarray,
    corpus: np.ndarray,
    k: int,
    exclude: np.ndarray | None = None,
    tie_ranks: np.ndarray | None = None,
) -> Ranking:
    ranks = np.arange(len(corpus)) if tie_ranks is None else tie_ranks
    doc_rows = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for q, query in enumerate(queries.astype(np.float64)):
        exact = corpus.astype(np.float64) @ query
        allowed = [d for d in range(len(corpus)) if exclude is None or d != exclude[q]]
        best = sorted(allowed, key=lambda d: (-exact[d], ranks[d]))[:k]
        doc_rows[q, : len(best)] = best
        scores[q, : len(best)] = exact[best]
    return Ranking(doc_rows, scores)


def check(
    queries: np.ndarray,
    corpus: np.ndarray,
    k: int,
    exclude: np.ndarray | None = None,
    tie_ranks: np.ndarray | None = None,
    **options: int,
) -> None:
    """Search finds what the oracle finds."""
    given = (None if a is None else torch.from_numpy(a) for a in (exclude, tie_ranks))
    options |= dict(zip(("exclude", "tie_ranks"), given, strict=True))
    found = search(torch.from_numpy(queries), torch.from_numpy(corpus), k, **options)
    expected = oracle(queries, corpus, k, exclude, tie_ranks)
    assert found.doc_rows.dtype == np.int64
    assert found.scores.dtype == np.float32
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.doc_rows, expected.doc_rows)


def whole(rng: np.random.Generator, largest: int, *shape: int) -> np.ndarray:
    """Small whole numbers, whose products float32 holds exactly."""
    return rng.integers(-largest, largest + 1, size=shape).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_queries=st.integers(0, 6),
    n_docs=st.integers(0, 30),
    dimensions=st.integers(1, 4),
    largest=st.integers(0, 3),
    k=st.integers(1, 35),
    with_exclude=st.booleans(),
    with_ranks=st.booleans(),
    block_bytes=st.sampled_from([1, 4, 8, 60, 200, 2**20]),
)
def test_equals_brute_force_whatever_ties_and_blocks(
    seed, n_queries, n_docs, dimensions, largest, k, with_exclude, with_ranks, block_bytes
) -> None:
    rng = np.random.default_rng(seed)
    queries, corpus = (whole(rng, largest, n, dimensions) for n in (n_queries, n_docs))
    exclude = rng.integers(-1, n_docs, size=n_queries) if with_exclude else None
    ranks = rng.permutation(n_docs) if with_ranks else None
    check(queries, corpus, k, exclude, ranks, block_bytes=block_bytes)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_docs=st.integers(60, 900),
    largest=st.sampled_from([0, 1, 3, 1000]),
    k=st.one_of(st.integers(1, 12), st.integers(28, 1000)),  # by maxima, and by parts
    excluded=st.integers(-1, 59),
    halves=st.booleans(),
)
def test_few_and_many_of_many_documents_are_found(
    seed, n_docs, largest, k, excluded, halves
) -> None:
    rng = np.random.default_rng(seed)
    queries, corpus = whole(rng, largest, 3, 2), whole(rng, largest, n_docs, 2)
    exclude = np.full(3, excluded)
    block_bytes = 4 * 3 * (n_docs // 2) if halves else None
    given = {} if block_bytes is None else {"block_bytes": block_bytes}
    check(queries, corpus, k, exclude, rng.permutation(n_docs), **given)


@pytest.mark.parametrize("k", [1, 10, 1999, 2000, 2001])
def test_massive_ties_follow_the_ranks(k: int) -> None:
    rng = np.random.default_rng(0)
    corpus = rng.integers(0, 2, size=(2000, 1)).astype(np.float32)  # two scores, a cut in each
    queries = np.array([[1.0], [-1.0], [0.0], [2.0]], dtype=np.float32)
    ranks = rng.permutation(2000)
    exclude = np.array([int(np.argmin(ranks)), -1, 5, 0])
    check(queries, corpus, k, exclude, ranks, block_bytes=4 * 4 * 700)


def test_ties_come_in_the_order_of_trec_eval() -> None:
    doc_ids = ["d1", "d10", "d2", "c"]
    assert tie_order(doc_ids).tolist() == [2, 1, 0, 3]
    ranks = torch.from_numpy(tie_order(doc_ids))
    found = search(torch.ones(1, 1), torch.ones(4, 1), 4, tie_ranks=ranks)
    assert found.doc_rows.tolist() == [[2, 1, 0, 3]]
    assert search(torch.ones(1, 1), torch.ones(4, 1), 4).doc_rows.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("n_queries", [1, 2, 3, 5, 7, 9, 10, 11, 16, 19, 20, 65])
def test_copies_tie_wherever_they_stand(n_queries: int) -> None:
    rng = np.random.default_rng(n_queries)
    for n_docs, dimensions in [(350, 384), (1027, 385), (2999, 64), (77, 1024)]:
        corpus = rng.standard_normal((n_docs, dimensions)).astype(np.float32)
        # The last rows are where a kernel would go another way.
        copies = np.unique([0, *rng.permutation(n_docs)[:8], *range(n_docs - 9, n_docs)])
        corpus[copies] = corpus[0]
        queries = rng.standard_normal((n_queries, dimensions)).astype(np.float32)
        ranks = rng.permutation(n_docs)
        in_order = copies[np.argsort(ranks[copies])]
        arguments = torch.from_numpy(queries), torch.from_numpy(corpus)
        ties = torch.from_numpy(ranks)
        full = search(*arguments, n_docs, tie_ranks=ties)
        first = np.argmax(np.isin(full.doc_rows, copies), axis=1)
        for rows, begin in zip(full.doc_rows, first.tolist(), strict=True):
            assert rows[begin : begin + len(copies)].tolist() == in_order.tolist()
        # A cut between copies: all documents of that query are compared, and the same ones win.
        cut = int(first[0]) + len(copies) // 2
        found = search(*arguments, cut, tie_ranks=ties)
        np.testing.assert_array_equal(found.doc_rows[0], full.doc_rows[0, :cut])


def test_the_same_search_gives_the_same_bytes_and_leaves_the_threads_alone() -> None:
    queries, corpus = normal(70, 48), normal(3000, 48, seed=1)
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, two = (search(queries, corpus, 120) for _ in range(2))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(usual)
    assert one.scores.tobytes() == two.scores.tobytes()
    assert one.doc_rows.tobytes() == two.doc_rows.tobytes()


def test_queries_are_taken_some_at_a_time() -> None:
    rng = np.random.default_rng(2)
    # Room for the results of five queries.
    check(whole(rng, 3, 30, 4), whole(rng, 3, 900, 4), 800, block_bytes=2**18)
    # More queries than are taken at a time.
    exclude = rng.integers(-1, 40, size=4500)
    check(whole(rng, 3, 4500, 3), whole(rng, 3, 40, 3), 7, exclude)


@pytest.mark.parametrize("block_bytes", [2**12, 2**28])
def test_vectors_of_any_length_are_ranked_by_dot_product(block_bytes: int) -> None:
    queries, corpus = normal(30, 16) * 5, normal(500, 16, seed=1) * normal(500, 1, seed=2).abs()
    found = search(queries, corpus, 20, block_bytes=block_bytes)
    expected = oracle(queries.numpy(), corpus.numpy(), 20)
    np.testing.assert_array_equal(found.doc_rows, expected.doc_rows)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_negative_zero_ties_with_zero() -> None:
    corpus = torch.tensor([[-0.0], [0.0], [-0.0], [1e-45], [-1e-45]])
    found = search(torch.ones(1, 1), corpus, 5)
    tiny = [row for row in found.doc_rows[0].tolist() if row < 3]
    assert tiny == [0, 1, 2]
    assert not np.signbit(found.scores[0, found.doc_rows[0] < 3]).any()
    assert search(torch.ones(1, 1), corpus[:3], 2).doc_rows.tolist() == [[0, 1]]


def test_faiss_agrees_where_no_scores_are_equal() -> None:
    queries, corpus = normal(20, 8), normal(60, 8, seed=1)
    exclude = torch.arange(20) - 1
    index = faiss.IndexFlatIP(8)
    index.add(corpus.numpy())
    for k in (1, 10, 59, 60, 70):
        for left_out in (None, exclude):
            ours = search(queries, corpus, k, exclude=left_out)
            for query, ranked in enumerate(ours.doc_rows):
                theirs = index.search(queries[query : query + 1].numpy(), 60)[1][0].tolist()
                if left_out is not None and left_out[query] >= 0:
                    theirs.remove(int(left_out[query]))
                assert ranked[ranked >= 0].tolist() == theirs[:k]


def test_inputs_are_left_as_they_were_and_need_no_gradient_switch() -> None:
    queries = torch.ones(2, 2, requires_grad=True)
    corpus = torch.eye(2)
    exclude = torch.tensor([0, 1])
    assert search(queries, corpus, 1, exclude=exclude).doc_rows.tolist() == [[1], [0]]
    assert torch.equal(corpus, torch.eye(2))
    assert exclude.tolist() == [0, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_inputs_that_are_not_finite_are_refused(bad: float) -> None:
    good = torch.ones(3, 2)
    wrong = good.clone()
    wrong[1, 1] = bad
    with pytest.raises(ValueError, match="corpus must hold finite"):
        search(good, wrong, 1)
    with pytest.raises(ValueError, match="queries must hold finite"):
        search(wrong, good, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_beyond_float32_are_refused(sign: int) -> None:
    huge = torch.full((2, 1), 3e38)
    assert search(torch.ones(1, 1), huge, 2).doc_rows.tolist() == [[0, 1]]
    for query, corpus in (
        (torch.tensor([[10.0 * sign]]), huge),
        (torch.tensor([[10.0 * sign, -10.0 * sign]]), huge.expand(2, 2).contiguous()),
    ):
        with pytest.raises(ValueError, match="too large for float32"):
            search(query, corpus, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must"),
        ({"block_bytes": 0}, "block_bytes"),
        ({"queries": torch.ones(2)}, "queries must be a float32 matrix"),
        ({"queries": torch.ones(2, 3)}, "3 dimensions"),
        ({"queries": torch.ones(2, 4, dtype=torch.float64)}, "float64"),
        ({"corpus": torch.ones(5, 4, dtype=torch.float16)}, "float16"),
        ({"exclude": torch.tensor([0])}, "exclude must be int64"),
        ({"exclude": torch.tensor([0, 1], dtype=torch.int32)}, "exclude must be int64"),
        ({"exclude": torch.tensor([0, 5])}, "rows from 0 to 4"),
        ({"exclude": torch.tensor([0, -2])}, "rows from 0 to 4"),
        ({"tie_ranks": torch.arange(4)}, "tie_ranks must be int64"),
        ({"tie_ranks": torch.tensor([0, 1, 2, 3, 3])}, "each of 0..4 once"),
        ({"tie_ranks": torch.arange(1, 6)}, "each of 0..4 once"),
        ({"tie_ranks": torch.arange(-1, 4)}, "each of 0..4 once"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    arguments = {"queries": torch.ones(2, 4), "corpus": torch.ones(5, 4), "k": 1} | options
    with pytest.raises(ValueError, match=message):
        search(**arguments)


def test_blocks_compared_with_the_worst_so_far_give_what_one_block_gives() -> None:
    """Ties across blocks included: values are few, so that the k-th is equal to many."""
    rng = np.random.default_rng(5)
    corpus = torch.from_numpy(rng.integers(-2, 3, (900, 4)).astype(np.float32))
    queries = torch.from_numpy(rng.integers(-2, 3, (7, 4)).astype(np.float32))
    ranks = torch.from_numpy(rng.permutation(900))
    exclude = torch.from_numpy(rng.integers(-1, 900, 7))
    for k in (1, 5, 40, 899):
        one = search(queries, corpus, k, exclude=exclude, tie_ranks=ranks)
        many = search(
            queries, corpus, k, exclude=exclude, tie_ranks=ranks, block_bytes=4 * 7 * max(64, k)
        )
        np.testing.assert_array_equal(one.doc_rows, many.doc_rows)
        np.testing.assert_array_equal(one.scores, many.scores)


def test_a_score_that_is_too_large_is_refused_in_a_later_block() -> None:
    corpus = torch.ones(400, 2)
    corpus[300] = 3e38
    with pytest.raises(ValueError, match="NaN or too large"):
        search(torch.full((2, 2), 10.0), corpus, 3, block_bytes=4 * 2 * 64)


def test_rows_in_half_precision_are_found_as_their_unit_rows_are() -> None:
    values = normal(700, 12, seed=3).half() * 3
    rows = HalfRows(values)
    dense = torch.nn.functional.normalize(values.float(), dim=-1)
    assert torch.equal(rows[:], dense)
    assert torch.equal(rows[3], dense[3])
    some = torch.tensor([[5, 2], [699, 0]])
    assert torch.equal(rows[some], dense[some])
    queries = torch.nn.functional.normalize(normal(9, 12, seed=4), dim=1)
    one, other = search(queries, rows, 20), search(queries, dense, 20)
    np.testing.assert_array_equal(one.doc_rows, other.doc_rows)
    np.testing.assert_array_equal(one.scores, other.scores)
    torch.testing.assert_close(
        products(queries[:2], rows, some), products(queries[:2], dense, some)
    )


def test_rows_that_are_read_stretch_by_stretch_are_searched_as_a_tensor_is() -> None:
    values = 2 * normal(900, 8, seed=6)
    read: list[tuple[int, int]] = []

    def stretch(start: int, end: int) -> torch.Tensor:
        read.append((start, end))
        return values[start:end]

    rows = ReadRows(stretch, (900, 8))
    queries = torch.nn.functional.normalize(normal(20, 8, seed=7), dim=1)
    dense = torch.nn.functional.normalize(values, dim=1)
    one = search(queries, rows, 30, block_bytes=4 * 20 * 128)
    other = search(queries, dense, 30, block_bytes=4 * 20 * 128)
    np.testing.assert_array_equal(one.doc_rows, other.doc_rows)
    assert {row for start, end in read for row in range(start, end)} == set(range(900))
    assert max(end - start for start, end in read) < 900
    with pytest.raises(TypeError, match="stretches"):
        rows[torch.tensor([1])]

"""Whether mapped texts find themselves, and what is chosen by it."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import normal

from era_cache.errors import FingerprintError, FitError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment import quality
from era_cache.fitting.alignment import self_retrieval as ranked
from era_cache.fitting.alignment.methods import ALIGNMENTS, align_rows, ridge
from era_cache.fitting.alignment.moments import moments_of
from era_cache.fitting.alignment.quality import alignment_curve, compare_alignments
from era_cache.fitting.alignment.self_retrieval import SelfRetrieval, hold_out, self_retrieval

IDENTITY = Adapter(("large",), torch.eye(2))


def _noisy(n: int = 120, noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Two noisy views of the same texts under a rotation."""
    hidden = normal(n, 8)
    large = hidden @ torch.linalg.qr(normal(12, 8, seed=1)).Q.T + noise * normal(n, 12, seed=2)
    return unit(large), unit(hidden[:, :6] + noise * normal(n, 6, seed=3))


def _parted(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of 120 texts to fit and to hold out, in the order that a seed draws them."""
    order = torch.randperm(120, generator=torch.Generator().manual_seed(seed))
    return order[24:], order[:24]


def _naive(mapped: torch.Tensor, small: torch.Tensor, corpus: torch.Tensor) -> SelfRetrieval:
    """One text at a time; equal cosines agree to the digits that float32 rows have."""
    cosines = [float(query @ own) for query, own in zip(mapped, small, strict=True)]
    ranks = [
        1 + sum(float(query @ doc) > cosine + 5e-7 for doc in corpus)
        for query, cosine in zip(mapped, cosines, strict=True)
    ]
    found = [[rank <= 1, rank <= 10, 1 / rank] for rank in ranks]
    return SelfRetrieval(*np.mean(found, axis=0), np.mean(cosines), len(ranks))


def test_copies_of_a_document_do_not_hide_each_other() -> None:
    # Wide, so that the products of copies differ in their last bits somewhere.
    vectors = unit(normal(40, 300))
    small = vectors.repeat(5, 1)
    adapter = Adapter(("large",), torch.eye(300))
    assert self_retrieval(adapter, small, small, small).recall_at_1 == 1.0


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 10_000))
def test_self_retrieval_equals_a_naive_loop_with_ties(n, d, seed) -> None:
    draw = torch.Generator().manual_seed(seed)

    def whole(*shape: int) -> torch.Tensor:
        """Small whole numbers: cosines are equal or far enough apart, and often equal."""
        return torch.randint(-2, 3, shape, generator=draw).float()

    small, extra, large = whole(n, d), whole(5, d), whole(n, 3)
    adapter = Adapter(("large",), whole(d, 3), torch.full((d,), 0.5))  # never 0
    mapped, corpus = adapter.mapped({"large": large}), torch.cat([small, extra])
    for documents in (small, corpus):
        found = self_retrieval(adapter, large, small, documents)
        expected = _naive(*(t.double() for t in (mapped, unit(small), unit(documents))))
        assert tuple(found) == pytest.approx(tuple(expected), abs=1e-6)


@pytest.mark.parametrize("block_bytes", [4 * 120 * 7, 1])
def test_blocks_change_nothing(monkeypatch, block_bytes) -> None:
    large, small = _noisy()
    adapter = align_rows(large, small, "procrustes", 0)
    whole = self_retrieval(adapter, large, small, small)
    monkeypatch.setattr(ranked, "_BLOCK_BYTES", block_bytes)
    found = self_retrieval(adapter, large, small, small)
    assert tuple(found) == pytest.approx(tuple(whole), abs=1e-6)


def test_a_map_to_zero_finds_nothing() -> None:
    large = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    half = Adapter(("large",), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert self_retrieval(half, large, large, large) == (0.5, 0.5, 0.5, 0.5, 2)
    tiny = Adapter(("large",), 1e-20 * torch.eye(2))
    assert self_retrieval(tiny, large, large, large).recall_at_10 == 0.0


def test_retrieval_that_means_nothing_is_refused() -> None:
    rows = normal(3, 2)
    broken = Adapter(("large",), torch.full((2, 2), float("nan")))
    with pytest.raises(FitError, match="The map makes NaN"):
        self_retrieval(broken, rows, rows, rows)
    for large, small, corpus, message in (
        (rows[:0], rows[:0], rows, "0 texts"),
        (rows, rows[:2], rows, "3 large vectors but 2 small"),
        (rows, rows * float("nan"), rows, "small vectors hold NaN"),
        (rows, rows, rows / 0.0, "corpus vectors hold NaN"),
        (rows, rows, rows[:0], "no document"),
        (normal(3, 4), rows, rows, "other encoders"),
        (rows, normal(3, 1), normal(3, 1), "other encoders"),
        (rows, rows, normal(3, 4), "other encoders"),
    ):
        error = FingerprintError if message == "other encoders" else FitError
        with pytest.raises(error, match=message):
            self_retrieval(IDENTITY, large, small, corpus)


def test_ridge_is_fitted_on_all_texts_at_the_strength_that_retrieves_best() -> None:
    large, small = _noisy(noise=0.8)
    found = align_rows(large, small, "ridge", seed=3)
    fitted, held = _parted(3)

    def at(strength: float, rows: torch.Tensor) -> Adapter:
        return Adapter(("large",), ridge(moments_of(large[rows], small[rows]), strength).float())

    grid = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
    mrr = [self_retrieval(at(s, fitted), large[held], small[held], small).mrr for s in grid]
    assert len(set(mrr)) > 1
    torch.testing.assert_close(
        found.weight, at(grid[mrr.index(max(mrr))], torch.cat([held, fitted])).weight
    )


def test_of_equally_good_ridges_the_stronger_is_taken() -> None:
    rows = torch.eye(8).repeat(5, 1)  # any strength finds everything
    strongest = ridge(moments_of(rows, rows), 10.0).float()
    torch.testing.assert_close(align_rows(rows, rows, "ridge", seed=0).weight, strongest)


def test_methods_are_measured_on_texts_that_they_have_not_seen() -> None:
    large, small = _noisy()
    fitted, held = _parted(5)
    assert [rows.tolist() for rows in hold_out(large, small, 5)] == [fitted.tolist(), held.tolist()]
    found = compare_alignments(large, small, list(ALIGNMENTS), seed=5)
    assert list(found) == list(ALIGNMENTS)
    assert found == compare_alignments(large, small, list(ALIGNMENTS), seed=5)
    for method, measures in found.items():
        adapter = align_rows(large[fitted], small[fitted], method, 5)
        assert measures == self_retrieval(adapter, large[held], small[held], small)
        assert measures.texts == 24
        assert measures.mrr > 0.2  # by chance about 0.05


@pytest.mark.parametrize(
    "run",
    [
        lambda x, y: compare_alignments(x, y, ["procrustes"], 0),
        lambda x, y: align_rows(x, y, "ridge", 0),
        lambda x, y: alignment_curve(x, y, (100,)),
    ],
)
def test_comparisons_need_two_different_texts(run) -> None:
    constant = normal(1, 4).expand(9, 4)
    for large, small, message in (
        (normal(1, 4), normal(1, 4), "at least 2"),
        (normal(9, 4), constant, "All 9 small vectors are equal"),
        (constant, normal(9, 4), "All 9 large vectors are equal"),
        (normal(9, 4), normal(8, 4), "9 large vectors but 8 small"),
        (normal(9, 4), normal(9, 4) * float("nan"), "NaN"),
    ):
        with pytest.raises(FitError, match=message):
            run(large, small)


def test_of_two_texts_one_is_held_out() -> None:
    large, small = normal(2, 4), normal(2, 3)
    assert compare_alignments(large, small, ["procrustes"], 0)["procrustes"].texts == 1
    [(count, measures)] = alignment_curve(large, small, (100, 300))
    assert (count, measures.texts) == (1, 1)
    with pytest.raises(FitError, match="All 1 large vectors are equal"):
        alignment_curve(large, small, (1,), "whitened")


def test_a_curve_fits_prefixes_and_measures_the_last_fifth() -> None:
    large, small = _noisy()
    curve = alignment_curve(large, small, (50, 10, 96, 1000, 3000), "whitened")
    assert [count for count, _ in curve] == [10, 50, 96]
    for count, measures in curve:
        adapter = align_rows(large[:count], small[:count], "whitened", 0)
        assert measures == self_retrieval(adapter, large[96:], small[96:], small)
        assert measures.texts == 24
    assert curve[-1][1].mrr > curve[0][1].mrr


def test_no_held_out_text_reaches_a_curves_maps(monkeypatch) -> None:
    large, small = _noisy()
    spy = Mock(side_effect=align_rows)
    monkeypatch.setattr(quality, "align_rows", spy)
    alignment_curve(large, small, (100, 300))
    (call,) = spy.call_args_list
    assert torch.equal(call.args[0], large[:96])

"""Whether mapped texts find themselves, and what is chosen by it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import normal

from era_cache.errors import FingerprintError, FitError
from era_cache.fitting.adapter import Adapter, unit
from era_cache.fitting.alignment import quality as align_quality
from era_cache.fitting.alignment.methods import ALIGNMENTS, ridge
from era_cache.fitting.alignment.moments import moments_of
from era_cache.fitting.alignment.quality import (
    SelfRetrieval,
    align_rows,
    alignment_curve,
    choose_alignment,
    compare_alignments,
    ridge_by_retrieval,
    self_retrieval,
)

IDENTITY = Adapter(("large",), torch.eye(2))


def _noisy(n: int = 120, noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Two noisy views of the same texts under a rotation."""
    hidden = normal(n, 8)
    large = hidden @ torch.linalg.qr(normal(12, 8, seed=1)).Q.T + noise * normal(n, 12, seed=2)
    return unit(large), unit(hidden[:, :6] + noise * normal(n, 6, seed=3))


def _naive(mapped: torch.Tensor, small: torch.Tensor, corpus: torch.Tensor) -> SelfRetrieval:
    """One text at a time; equal cosines agree to the digits that float32 rows have."""
    ranks, cosines = [], []
    for query, own in zip(mapped.double(), small.double(), strict=True):
        cosine = float(query @ own)
        ranks.append(1 + sum(float(query @ doc) > cosine + 5e-7 for doc in corpus.double()))
        cosines.append(cosine)
    n = len(ranks)
    return SelfRetrieval(
        sum(rank <= 1 for rank in ranks) / n,
        sum(rank <= 10 for rank in ranks) / n,
        sum(1 / rank for rank in ranks) / n,
        sum(cosines) / n,
        n,
    )


def test_ranks_by_hand() -> None:
    large = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    small = torch.tensor([[2.0, 0.0], [4.0, 3.0], [0.0, 1.0]])
    # Cosines: (1, .8, 0), (0, .6, 1), (.6, .96, .8): own ranks 1, 2, 2.
    found = self_retrieval(IDENTITY, large, small)
    expected = (1 / 3, 1.0, (1 + 1 / 2 + 1 / 2) / 3, (1 + 0.6 + 0.8) / 3, 3)
    assert tuple(found) == pytest.approx(expected)


def test_copies_of_a_document_do_not_hide_each_other() -> None:
    # Wide, so that the products of copies differ in their last bits somewhere.
    vectors = unit(normal(40, 300))
    small = vectors.repeat(5, 1)
    adapter = Adapter(("large",), torch.eye(300))
    assert self_retrieval(adapter, small, small).recall_at_1 == 1.0


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 10_000))
def test_self_retrieval_equals_a_naive_loop_with_ties(n, d, seed) -> None:
    draw = torch.Generator().manual_seed(seed)

    def whole(*shape: int) -> torch.Tensor:
        """Small whole numbers: cosines are equal or far enough apart, and often equal."""
        return torch.randint(-2, 3, shape, generator=draw).float()

    small, extra, large = whole(n, d), whole(5, d), whole(n, 3)
    adapter = Adapter(("large",), whole(d, 3), torch.full((d,), 0.5))  # never 0
    mapped, corpus = adapter.apply({"large": large}), torch.cat([small, extra])
    for documents, given_documents in ((small, None), (corpus, corpus)):
        found = self_retrieval(adapter, large, small, given_documents)
        expected = _naive(mapped, unit(small), unit(documents))
        assert tuple(found) == pytest.approx(tuple(expected), abs=1e-6)


def test_blocks_change_nothing(monkeypatch) -> None:
    large, small = _noisy()
    adapter = align_rows(large, small, "procrustes", 0)
    whole = self_retrieval(adapter, large, small)
    monkeypatch.setattr(align_quality, "_BLOCK_BYTES", 4 * len(small) * 7)
    assert tuple(self_retrieval(adapter, large, small)) == pytest.approx(tuple(whole), abs=1e-6)
    monkeypatch.setattr(align_quality, "_BLOCK_BYTES", 1)
    assert tuple(self_retrieval(adapter, large, small)) == pytest.approx(tuple(whole), abs=1e-6)


def test_a_map_to_zero_finds_nothing() -> None:
    large = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    half = Adapter(("large",), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert self_retrieval(half, large, large) == (0.5, 0.5, 0.5, 0.5, 2)
    tiny = Adapter(("large",), 1e-20 * torch.eye(2))
    assert self_retrieval(tiny, large, large).recall_at_10 == 0.0


def test_retrieval_that_means_nothing_is_refused() -> None:
    rows = normal(3, 2)
    broken = Adapter(("large",), torch.full((2, 2), float("nan")))
    with pytest.raises(FitError, match="The map makes NaN"):
        self_retrieval(broken, rows, rows)
    for large, small, corpus, message in (
        (rows[:0], rows[:0], None, "0 texts"),
        (rows, rows[:2], None, "3 large vectors but 2 small"),
        (rows, rows * float("nan"), None, "small vectors hold NaN"),
        (rows, rows, rows / 0.0, "corpus vectors hold NaN"),
        (rows, rows, rows[:0], "no document"),
    ):
        with pytest.raises(FitError, match=message):
            self_retrieval(IDENTITY, large, small, corpus)
    for large, small, corpus in (
        (normal(3, 4), rows, None),
        (rows, normal(3, 1), None),
        (rows, rows, normal(3, 4)),
    ):
        with pytest.raises(FingerprintError, match="other encoders"):
            self_retrieval(IDENTITY, large, small, corpus)


def test_ridge_is_fitted_on_all_texts_at_the_strength_that_retrieves_best() -> None:
    large, small = _noisy(noise=0.8)
    found = ridge_by_retrieval(large, small, seed=3)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(3))
    held, fitted = order[:24], order[24:]

    def at(strength: float, rows: torch.Tensor) -> Adapter:
        return Adapter(("large",), ridge(moments_of(large[rows], small[rows]), strength).float())

    grid = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
    mrr = [self_retrieval(at(s, fitted), large[held], small[held], small).mrr for s in grid]
    assert len(set(mrr)) > 1
    torch.testing.assert_close(found.weight, at(grid[mrr.index(max(mrr))], order).weight)


def test_of_equally_good_ridges_the_stronger_is_taken() -> None:
    rows = torch.eye(8).repeat(5, 1)  # any strength finds everything
    strongest = ridge(moments_of(rows, rows), 10.0).float()
    torch.testing.assert_close(ridge_by_retrieval(rows, rows, seed=0).weight, strongest)


def test_methods_by_name_equal_those_of_moments_but_for_ridge() -> None:
    large, small = _noisy()
    for method, fit in ALIGNMENTS.items():
        found = align_rows(large, small, method, seed=1).weight
        if method == "ridge":
            assert torch.equal(found, ridge_by_retrieval(large, small, 1).weight)
        else:
            assert torch.equal(found, fit(moments_of(large, small)).weight)
    with pytest.raises(FitError, match=r"'pca' is unknown. Known are procrustes, "):
        align_rows(large, small, "pca", 0)


def test_methods_are_measured_on_texts_that_they_have_not_seen() -> None:
    large, small = _noisy()
    order = torch.randperm(120, generator=torch.Generator().manual_seed(5))
    held, fitted = order[:30], order[30:]
    found = compare_alignments(large, small, ["whitened", "procrustes"], seed=5, held_out=0.25)
    assert list(found) == ["whitened", "procrustes"]
    for method, measures in found.items():
        adapter = ALIGNMENTS[method](moments_of(large[fitted], small[fitted]))
        assert measures == self_retrieval(adapter, large[held], small[held], small)
        assert measures.texts == 30


@pytest.mark.parametrize("seed", [0, 1])
def test_every_method_is_far_above_chance_and_repeatable(seed) -> None:
    large, small = _noisy()
    found = compare_alignments(large, small, list(ALIGNMENTS), seed)
    assert min(measures.mrr for measures in found.values()) > 0.2  # by chance about 0.05
    assert found == compare_alignments(large, small, list(ALIGNMENTS), seed)
    best = choose_alignment(large, small, list(ALIGNMENTS), seed)
    assert found[best].mrr == max(measures.mrr for measures in found.values())


def test_a_spoiled_method_is_not_chosen_and_ties_go_to_the_first(monkeypatch) -> None:
    large = unit(normal(60, 6))
    monkeypatch.setattr(
        align_quality,
        "ALIGNMENTS",
        {**ALIGNMENTS, "none": lambda _: Adapter(("large",), torch.zeros(6, 6))},
    )
    # Both rotations find every text.
    for first, second in (("procrustes", "whitened"), ("whitened", "procrustes")):
        assert choose_alignment(large, large, ["none", first, second], 0) == first


def test_comparisons_need_two_different_texts() -> None:
    one, constant = normal(1, 4), normal(1, 4).expand(9, 4)
    for run in (
        lambda x, y: compare_alignments(x, y, ["procrustes"], 0),
        lambda x, y: choose_alignment(x, y, ["procrustes"], 0),
        lambda x, y: ridge_by_retrieval(x, y, 0),
        alignment_curve,
    ):
        with pytest.raises(FitError, match="at least 2"):
            run(one, one)
        with pytest.raises(FitError, match="All 9 small vectors are equal"):
            run(normal(9, 4), constant)
        with pytest.raises(FitError, match="All 9 large vectors are equal"):
            run(constant, normal(9, 4))
        with pytest.raises(FitError, match="9 large vectors but 8 small"):
            run(normal(9, 4), normal(8, 4))
        with pytest.raises(FitError, match="NaN"):
            run(normal(9, 4), normal(9, 4) * float("nan"))
    assert (
        compare_alignments(normal(2, 4), normal(2, 4), ["procrustes"], 0)["procrustes"].texts == 1
    )


def test_options_out_of_range_are_refused() -> None:
    large, small = _noisy()
    for share in (0.0, 1.0, -0.2, float("nan")):
        with pytest.raises(ValueError, match="held_out"):
            compare_alignments(large, small, ["procrustes"], 0, share)
    with pytest.raises(ValueError, match="empty"):
        choose_alignment(large, small, [], 0)
    with pytest.raises(ValueError, match="counts"):
        alignment_curve(large, small, (0, 10))
    with pytest.raises(FitError, match="All 1 large vectors are equal"):
        alignment_curve(large, small, (1,), "whitened")


def test_a_curve_fits_prefixes_and_measures_the_last_fifth() -> None:
    large, small = _noisy()
    curve = alignment_curve(large, small, (50, 10, 96, 1000, 3000), "whitened")
    assert [count for count, _ in curve] == [10, 50, 96]
    for count, measures in curve:
        adapter = ALIGNMENTS["whitened"](moments_of(large[:count], small[:count]))
        assert measures == self_retrieval(adapter, large[96:], small[96:], small)
        assert measures.texts == 24
    assert curve[-1][1].mrr > curve[0][1].mrr


def test_no_held_out_text_reaches_a_curves_maps(monkeypatch) -> None:
    large, small = _noisy()
    fitted = []

    def spy(x, y, method, seed):
        fitted.append(x)
        return align_rows(x, y, method, seed)

    monkeypatch.setattr(align_quality, "align_rows", spy)
    alignment_curve(large, small)
    assert [len(rows) for rows in fitted] == [96]
    assert torch.equal(fitted[0], large[:96])


def test_a_curve_of_two_texts_has_one_point() -> None:
    [(count, measures)] = alignment_curve(normal(2, 4), normal(2, 3), method="procrustes")
    assert (count, measures.texts) == (1, 1)

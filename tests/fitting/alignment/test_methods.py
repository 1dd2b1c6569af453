"""Alignment without labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from planted import aligned, normal

from era_cache.errors import FitError
from era_cache.fitting.adapter import unit
from era_cache.fitting.alignment.methods import (
    ALIGNMENTS,
    align_paper,
    align_rows,
    procrustes,
    ridge,
    whitened,
)
from era_cache.fitting.alignment.moments import moments_of
from era_cache.fitting.config import PaperConfig

CONFIG = PaperConfig(align_epochs=20, batch=64)


def _orthonormal(d_out: int, d_in: int, seed: int) -> torch.Tensor:
    """Orthonormal rows; there are no more of them than columns."""
    return torch.linalg.qr(normal(d_in, d_out, seed=seed)).Q.T


def _related() -> tuple[torch.Tensor, torch.Tensor]:
    large = unit(normal(300, 12))
    return large, unit(large @ normal(12, 8, seed=1))


def test_the_papers_alignment_lowers_the_cosine_distance() -> None:
    large, small = _related()
    adapters = [
        align_paper(large, small, PaperConfig(align_epochs=epochs, batch=64))
        for epochs in (0, 20, 60)
    ]
    for adapter in adapters:
        assert (adapter.weight.shape, adapter.bias.shape) == ((8, 12), (8,))
        assert not adapter.weight.requires_grad
    untrained, trained, longer = (
        float(1 - (adapter.apply({"large": large}) * small).sum(dim=1).mean())
        for adapter in adapters
    )
    assert untrained > 0.8
    assert trained < 0.8 * untrained
    assert longer < 0.6 * trained


def test_the_papers_alignment_depends_on_its_seed_only() -> None:
    large, small = _related()
    one = align_paper(large, small, CONFIG)
    torch.manual_seed(99)  # the global generator takes no part
    again = align_paper(large, small, CONFIG)
    assert torch.equal(one.weight, again.weight)
    assert torch.equal(one.bias, again.bias)
    other = align_paper(large, small, dataclasses.replace(CONFIG, seed=1))
    assert not torch.equal(one.weight, other.weight)


def test_a_tenth_of_the_texts_takes_no_part_in_the_papers_alignment() -> None:
    large, small = _related()
    config = PaperConfig(align_epochs=1, batch=1000)
    base = align_paper(large, small, config)
    unchanged = 0
    for row in range(0, 300, 10):
        moved = small.clone()
        moved[row] = -moved[row]
        unchanged += torch.equal(base.weight, align_paper(large, moved, config).weight)
    # 30 rows tried of which each is held out with probability 1/10.
    assert 0 < unchanged < 10


def test_the_papers_alignment_runs_on_one_text() -> None:
    adapter = align_paper(unit(normal(1, 4)), unit(normal(1, 3)), PaperConfig(align_epochs=2))
    assert torch.isfinite(adapter.weight).all()


def _pair(n: int = 60, d_large: int = 9, d_small: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of any length about means that are not zero."""
    large = normal(n, d_large) + 0.7
    return large, large @ normal(d_large, d_small, seed=1) + 0.3 * normal(n, d_small, seed=2) - 0.4


def test_a_rotation_of_a_plane_by_hand() -> None:
    # Y^T X = [[0, -2], [1, 0]]: its singular vectors make a quarter turn.
    large = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    small = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    weight = procrustes(moments_of(large, small))
    torch.testing.assert_close(weight, torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double())


@pytest.mark.parametrize(("d_large", "d_small"), [(12, 5), (5, 12), (7, 7)])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("centred", [False, True])
def test_rotations_keep_the_strongest_shared_directions_at_length_one(
    d_large, d_small, rank, centred
) -> None:
    # That no other orthonormal map fits better is Schönemann's theorem.
    large, small = (side.double().numpy() for side in _pair(60, d_large, d_small))
    moments = moments_of(torch.from_numpy(large), torch.from_numpy(small))
    x, y = (side - side.mean(0) if centred else side for side in (large, small))
    u, _, vt = np.linalg.svd(y.T @ x, full_matrices=False)
    found = procrustes(moments, centred=centred, rank=rank)
    np.testing.assert_allclose(found.numpy(), u[:, :rank] @ vt[:rank], atol=1e-9)


@pytest.mark.parametrize("n", [60, 4])  # also fewer texts than dimensions
@pytest.mark.parametrize("strength", [0.01, 1.0, 10.0])
def test_ridge_solves_the_augmented_least_squares(n, strength) -> None:
    large, small = (side.double() for side in _pair(n))
    pull = (strength * (large**2).sum() / 9).sqrt()
    x = torch.cat([large, pull * torch.eye(9).double()])
    y = torch.cat([small, torch.zeros(9, 6).double()])
    expected = torch.linalg.lstsq(x, y).solution.T
    moments = moments_of(large, small)
    for _ in range(2):  # the moments are left as they are
        torch.testing.assert_close(ridge(moments, strength), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("shrink", [0.3, 1.0])
@pytest.mark.parametrize(("d_large", "d_small"), [(9, 6), (6, 9)])
def test_whitening_equals_the_formula_with_matrix_roots(d_large, d_small, shrink) -> None:
    large, small = (side.double().numpy() for side in _pair(40, d_large, d_small))
    x, y = large - large.mean(0), small - small.mean(0)

    def roots(rows):
        cov = rows.T @ rows
        shrunk = (1 - shrink) * cov + shrink * np.trace(cov) / len(cov) * np.eye(len(cov))
        root = scipy.linalg.sqrtm(shrunk).real
        return root, np.linalg.inv(root)

    (_, from_large), (to_small, from_small) = roots(x), roots(y)
    u, _, vt = np.linalg.svd(from_small @ y.T @ x @ from_large, full_matrices=False)
    expected = to_small @ u @ vt @ from_large
    found = whitened(moments_of(torch.from_numpy(large), torch.from_numpy(small)), shrink)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)
    # Also of fewer texts than dimensions there is a map.
    assert whitened(moments_of(*_pair(4)), shrink).isfinite().all()


def test_a_mixture_is_half_of_each_map_at_one_length() -> None:
    large, small = _pair()
    moments = moments_of(large, small)
    a, b = procrustes(moments), whitened(moments, 0.5)
    expected = a / a.norm() + b / b.norm()
    found = align_rows(large, small, "mixture", 0).weight.double()
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), atol=1e-6, rtol=0)


def test_alignments_have_the_agreed_names() -> None:
    names = "procrustes procrustes-centred ridge mixture whitened low-rank"
    assert list(ALIGNMENTS) == names.split()


@pytest.mark.parametrize("method", ALIGNMENTS)
@pytest.mark.parametrize(("d_large", "d_small"), [(12, 5), (5, 12), (7, 7), (1, 1)])
def test_every_alignment_is_an_adapter_that_brings_texts_near_themselves(
    method, d_large, d_small
) -> None:
    shared = normal(80, min(d_large, d_small))
    large = unit(shared @ _orthonormal(shared.shape[1], d_large, 1) + 0.1 * normal(80, d_large))
    small = unit(shared @ _orthonormal(shared.shape[1], d_small, 2))
    adapter = align_rows(large, small, method, 0)
    assert (adapter.views, adapter.bias) == (("large",), None)
    assert adapter.weight.shape == (d_small, d_large)
    assert adapter.weight.dtype == torch.float32
    assert float((adapter.apply({"large": large}) * small).sum(dim=1).mean()) > 0.8


def test_the_alignments_differ() -> None:
    weights = [align_rows(*_pair(), method, 0).weight for method in ALIGNMENTS]
    for number, weight in enumerate(weights):
        for other in weights[:number]:
            assert (weight / weight.norm() - other / other.norm()).abs().max() > 1e-3


def test_the_low_rank_alignment_keeps_three_quarters_of_the_directions() -> None:
    weight = align_rows(*_pair(d_large=12, d_small=8), "low-rank", 0).weight
    assert int(torch.linalg.matrix_rank(weight, atol=1e-4)) == 6


@pytest.mark.parametrize("method", [name for name in ALIGNMENTS if name != "ridge"])
def test_no_alignment_is_fitted_from_nothing_or_from_rows_that_do_not_fit(method) -> None:
    rows = normal(5, 4)
    for large, small, message in (
        (rows[:0], torch.empty(0, 3), "no text"),
        (0 * rows, normal(5, 3), "zero"),
        (rows, normal(4, 3), "5 large vectors but 4 small"),
        (rows, normal(5, 3) / 0, "small vectors hold NaN or infinity"),
    ):
        with pytest.raises(FitError, match=message):
            align_rows(large, small, method, 0)


@pytest.mark.parametrize("method", [name for name in ALIGNMENTS if name != "procrustes"])
def test_equal_vectors_have_no_covariance_to_align(method) -> None:
    constant = unit(normal(1, 4)).expand(50, 4)
    varied = unit(normal(50, 4))
    with pytest.raises(FitError, match="All 50 large vectors are equal"):
        align_rows(constant, varied, method, 0)
    with pytest.raises(FitError, match="All 50 small vectors are equal"):
        align_rows(varied, constant, method, 0)


def test_the_default_alignment_is_the_rotation() -> None:
    large, small = _pair()
    rotation = procrustes(moments_of(large, small)).float()
    assert torch.equal(aligned(large, small).weight, rotation)


def test_an_unknown_alignment_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(FitError, match=r"'pca' is unknown. Known are procrustes, "):
        align_rows(*_pair(), "pca", 0)

"""Alignment without labels."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from planted import aligned, normal

from era_cache.config import PaperConfig
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
from era_cache.fitting.alignment.moments import Moments, moments_of

CONFIG = PaperConfig(align_epochs=20, batch=64)


def _orthonormal(d_out: int, d_in: int, seed: int) -> torch.Tensor:
    """Orthonormal rows or columns, whichever are fewer."""
    longer, shorter = max(d_out, d_in), min(d_out, d_in)
    q = torch.linalg.qr(normal(longer, shorter, seed=seed)).Q
    return q if d_out == longer else q.T


def test_a_planted_rotation_is_recovered() -> None:
    rotation = _orthonormal(8, 8, 1)
    large = unit(normal(50, 8))
    adapter = aligned(large, large @ rotation.T)
    assert adapter.views == ("large",)
    assert adapter.bias is None
    assert adapter.weight.dtype == torch.float32
    torch.testing.assert_close(adapter.weight, rotation, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("d_large", "d_small"), [(12, 5), (5, 12)])
def test_a_planted_rectangular_map_is_recovered_on_the_texts(d_large, d_small) -> None:
    planted = _orthonormal(d_small, d_large, 2)
    large = normal(80, d_large) if d_small > d_large else normal(80, d_small) @ planted
    large = unit(large)
    adapter = aligned(large, large @ planted.T)
    torch.testing.assert_close(adapter.apply({"large": large}), unit(large @ planted.T))


def test_square_maps_equal_those_of_scipy() -> None:
    large, small = unit(normal(60, 7)), unit(normal(60, 7, seed=1))
    expected, _ = scipy.linalg.orthogonal_procrustes(large.double().numpy(), small.double().numpy())
    np.testing.assert_allclose(aligned(large, small).weight.numpy(), expected.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("d_large", "d_small"), [(12, 5), (5, 12), (7, 7)])
def test_maps_are_orthonormal_and_no_other_fits_better(d_large, d_small) -> None:
    large = unit(normal(60, d_large))
    small = unit(large @ normal(d_large, d_small, seed=1) + 0.3 * normal(60, d_small, seed=2))
    weight = aligned(large, small).weight
    gram = weight @ weight.T if d_small <= d_large else weight.T @ weight
    torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)

    def agreement(w: torch.Tensor) -> float:
        return float(((large @ w.T) * small).sum())

    best = agreement(weight)
    others = [agreement(_orthonormal(d_small, d_large, seed)) for seed in range(3, 60)]
    # Also close by: small turns of the small space.
    drawn = [normal(d_small, d_small, seed=seed) for seed in range(20)]
    turns = [torch.matrix_exp(0.05 * (a - a.T)) for a in drawn]
    others += [agreement(turn @ weight) for turn in turns]
    assert best > max(others)


def _distance(adapter, large: torch.Tensor, small: torch.Tensor) -> float:
    return float(1 - (adapter.apply({"large": large}) * small).sum(dim=1).mean())


def _related() -> tuple[torch.Tensor, torch.Tensor]:
    large = unit(normal(300, 12))
    return large, unit(large @ normal(12, 8, seed=1))


def test_the_papers_alignment_lowers_the_cosine_distance() -> None:
    large, small = _related()
    untrained = align_paper(large, small, PaperConfig(align_epochs=0))
    trained = align_paper(large, small, CONFIG)
    longer = align_paper(large, small, PaperConfig(align_epochs=60, batch=64))
    assert trained.weight.shape == (8, 12)
    assert trained.bias is not None
    assert trained.bias.shape == (8,)
    assert not trained.weight.requires_grad
    distances = [_distance(adapter, large, small) for adapter in (untrained, trained, longer)]
    assert distances[0] > 0.8
    assert distances[1] < 0.8 * distances[0]
    assert distances[2] < 0.6 * distances[1]


def test_the_papers_alignment_depends_on_its_seed_only() -> None:
    large, small = _related()
    one, again = align_paper(large, small, CONFIG), align_paper(large, small, CONFIG)
    assert torch.equal(one.weight, again.weight)
    assert torch.equal(one.bias, again.bias)
    torch.manual_seed(99)  # the global generator takes no part
    assert torch.equal(one.weight, align_paper(large, small, CONFIG).weight)
    other = align_paper(large, small, PaperConfig(align_epochs=20, batch=64, seed=1))
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


def _moments() -> Moments:
    return moments_of(*_pair())


def test_a_rotation_of_a_plane_by_hand() -> None:
    # Y^T X = [[0, -2], [1, 0]]: its singular vectors make a quarter turn.
    large = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    small = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    weight = procrustes(moments_of(large, small))
    torch.testing.assert_close(weight, torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double())


def test_centred_rotation_is_blind_to_the_means() -> None:
    rotation = _orthonormal(8, 8, 1)
    large = normal(50, 8)
    small = large @ rotation.T + 5.0 * normal(8, seed=3)
    moments = moments_of(large - 4.0, small)
    torch.testing.assert_close(
        procrustes(moments, centred=True).float(), rotation, atol=1e-5, rtol=0
    )
    assert (procrustes(moments).float() - rotation).abs().max() > 0.1


def test_centred_rotation_equals_that_of_centred_rows() -> None:
    large, small = _pair()
    product = (small - small.mean(0)).double().T @ (large - large.mean(0)).double()
    u, _, vt = np.linalg.svd(product.numpy(), full_matrices=False)
    found = procrustes(_moments(), centred=True)
    np.testing.assert_allclose(found.numpy(), u @ vt, atol=1e-6)


def test_a_rotation_of_low_rank_keeps_the_strongest_shared_directions() -> None:
    moments = _moments()
    u, _, vt = np.linalg.svd(moments.small_large.numpy(), full_matrices=False)
    np.testing.assert_allclose(procrustes(moments, rank=2).numpy(), u[:, :2] @ vt[:2], atol=1e-12)
    torch.testing.assert_close(procrustes(moments, rank=6), procrustes(moments))


def test_ridge_by_hand() -> None:
    # One dimension: x = 1, 3 and y = 2, 4 give xy = 14 and xx = 10; strength 0.5 adds 5.
    moments = moments_of(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0]]))
    assert float(ridge(moments, 0.5)) == pytest.approx(14 / 15)


@pytest.mark.parametrize("n", [60, 4])  # also fewer texts than dimensions
@pytest.mark.parametrize("strength", [0.01, 1.0, 10.0])
def test_ridge_solves_the_augmented_least_squares(n, strength) -> None:
    large, small = (side.double() for side in _pair(n))
    pull = (strength * (large**2).sum() / 9).sqrt()
    x = torch.cat([large, pull * torch.eye(9).double()])
    y = torch.cat([small, torch.zeros(9, 6).double()])
    expected = torch.linalg.lstsq(x, y).solution.T
    found = ridge(moments_of(large, small), strength)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_ridge_leaves_the_moments_as_they_are() -> None:
    moments, again = _moments(), _moments()
    ridge(moments, 1.0)
    assert torch.equal(moments.large_large, again.large_large)


def test_whitening_recovers_a_planted_linear_map_that_no_rotation_fits() -> None:
    planted = normal(7, 7, seed=4)
    large = normal(80, 7) + 0.5
    moments = moments_of(large, large.double() @ planted.double().T - 3.0)
    torch.testing.assert_close(whitened(moments, 1e-9).float(), planted, atol=1e-3, rtol=1e-3)
    assert (procrustes(moments).float() - planted).abs().max() > 0.5


@pytest.mark.parametrize(("d_large", "d_small"), [(9, 6), (6, 9)])
def test_whitening_equals_the_formula_with_matrix_roots(d_large, d_small) -> None:
    large, small = (side.double().numpy() for side in _pair(40, d_large, d_small))
    x, y = large - large.mean(0), small - small.mean(0)

    def roots(rows):
        cov = rows.T @ rows
        shrunk = 0.7 * cov + 0.3 * np.trace(cov) / len(cov) * np.eye(len(cov))
        root = scipy.linalg.sqrtm(shrunk).real
        return root, np.linalg.inv(root)

    (_, from_large), (to_small, from_small) = roots(x), roots(y)
    u, _, vt = np.linalg.svd(from_small @ y.T @ x @ from_large, full_matrices=False)
    expected = to_small @ u @ vt @ from_large
    found = whitened(moments_of(torch.from_numpy(large), torch.from_numpy(small)), 0.3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)


def test_full_shrinkage_is_the_centred_rotation_times_a_number() -> None:
    moments = _moments()
    weight, rotation = whitened(moments, 1.0), procrustes(moments, centred=True)
    torch.testing.assert_close(weight / weight.norm(), rotation / rotation.norm())


def test_whitening_works_on_fewer_texts_than_dimensions() -> None:
    large, small = _pair(n=4)
    assert whitened(moments_of(large, small), 0.1).isfinite().all()


def test_a_mixture_is_half_of_each_map_at_one_length() -> None:
    large, small = _pair()
    moments = moments_of(large, small)
    a, b = procrustes(moments), whitened(moments, 0.5)
    expected = a / a.norm() + b / b.norm()
    found = align_rows(large, small, "mixture", 0).weight.double()
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), atol=1e-6, rtol=0)


def test_alignments_have_the_agreed_names() -> None:
    assert list(ALIGNMENTS) == [
        "procrustes",
        "procrustes-centred",
        "ridge",
        "mixture",
        "whitened",
        "low-rank",
    ]


@pytest.mark.parametrize("method", ALIGNMENTS)
@pytest.mark.parametrize(("d_large", "d_small"), [(12, 5), (5, 12), (7, 7), (1, 1)])
def test_every_alignment_is_an_adapter_that_brings_texts_near_themselves(
    method, d_large, d_small
) -> None:
    shared = normal(80, min(d_large, d_small))
    large = unit(shared @ _orthonormal(shared.shape[1], d_large, 1) + 0.1 * normal(80, d_large))
    small = unit(shared @ _orthonormal(shared.shape[1], d_small, 2))
    adapter = align_rows(large, small, method, 0)
    assert adapter.views == ("large",)
    assert adapter.bias is None
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
def test_no_alignment_is_fitted_from_nothing(method) -> None:
    with pytest.raises(FitError, match="no text"):
        align_rows(torch.empty(0, 4), torch.empty(0, 3), method, 0)
    with pytest.raises(FitError, match="zero"):
        align_rows(torch.zeros(5, 4), normal(5, 3), method, 0)


@pytest.mark.parametrize("method", [name for name in ALIGNMENTS if name != "procrustes"])
def test_equal_vectors_have_no_covariance_to_align(method) -> None:
    constant = unit(normal(1, 4)).expand(50, 4)
    varied = unit(normal(50, 4))
    with pytest.raises(FitError, match="All 50 large vectors are equal"):
        align_rows(constant, varied, method, 0)
    with pytest.raises(FitError, match="All 50 small vectors are equal"):
        align_rows(varied, constant, method, 0)


@pytest.mark.parametrize(
    ("large", "small", "message"),
    [
        (torch.ones(2, 4), torch.ones(3, 3), "2 large vectors but 3 small"),
        (torch.tensor([[float("nan")]]), torch.ones(1, 3), "large vectors hold NaN"),
        (torch.ones(1, 3), torch.tensor([[float("inf")]]), "small vectors hold NaN or infinity"),
    ],
)
def test_rows_that_cannot_be_aligned_are_refused(large, small, message) -> None:
    with pytest.raises(FitError, match=message):
        aligned(large, small)


def test_an_unknown_alignment_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(FitError, match=r"'pca' is unknown. Known are procrustes, "):
        align_rows(*_pair(), "pca", 0)

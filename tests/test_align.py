"""Alignment without labels."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from planted import normal

from era_cache.adapters import unit
from era_cache.align import align_paper, align_procrustes
from era_cache.config import PaperConfig

CONFIG = PaperConfig(align_epochs=20, batch=64)


def _orthonormal(d_out: int, d_in: int, seed: int) -> torch.Tensor:
    """Orthonormal rows or columns, whichever are fewer."""
    longer, shorter = max(d_out, d_in), min(d_out, d_in)
    q = torch.linalg.qr(normal(longer, shorter, seed=seed)).Q
    return q if d_out == longer else q.T


def test_a_planted_rotation_is_recovered() -> None:
    rotation = _orthonormal(8, 8, 1)
    large = unit(normal(50, 8))
    adapter = align_procrustes(large, large @ rotation.T)
    assert adapter.views == ("large",)
    assert adapter.bias is None
    assert adapter.weight.dtype == torch.float32
    torch.testing.assert_close(adapter.weight, rotation, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("d_large", "d_small"), [(12, 5), (5, 12)])
def test_a_planted_rectangular_map_is_recovered_on_the_texts(d_large, d_small) -> None:
    planted = _orthonormal(d_small, d_large, 2)
    large = normal(80, d_large) if d_small > d_large else normal(80, d_small) @ planted
    large = unit(large)
    adapter = align_procrustes(large, large @ planted.T)
    torch.testing.assert_close(adapter.apply({"large": large}), unit(large @ planted.T))


def test_square_maps_equal_those_of_scipy() -> None:
    large, small = unit(normal(60, 7)), unit(normal(60, 7, seed=1))
    expected, _ = scipy.linalg.orthogonal_procrustes(large.double().numpy(), small.double().numpy())
    np.testing.assert_allclose(
        align_procrustes(large, small).weight.numpy(), expected.T, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("d_large", "d_small"), [(12, 5), (5, 12), (7, 7)])
def test_maps_are_orthonormal_and_no_other_fits_better(d_large, d_small) -> None:
    large = unit(normal(60, d_large))
    small = unit(large @ normal(d_large, d_small, seed=1) + 0.3 * normal(60, d_small, seed=2))
    weight = align_procrustes(large, small).weight
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


def test_equal_spaces_give_the_identity() -> None:
    vectors = unit(normal(40, 6))
    weight = align_procrustes(vectors, vectors).weight
    torch.testing.assert_close(weight, torch.eye(6), atol=1e-5, rtol=0)


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

"""What an adapter computes, against values worked by hand and plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planted import normal

from era_cache.errors import FingerprintError
from era_cache.fitting import adapter as maps
from era_cache.fitting.adapter import Adapter, Hidden, References, unit


def _table(step: float = 0.4, view: str = "large", **changes: object) -> References:
    """Twelve references whose keys have 5 dimensions and whose values have 3."""
    table = References(
        view, unit(normal(12, 5, seed=1)), unit(normal(12, 3, seed=2)), temperature=0.2, step=step
    )
    return table._replace(**changes)


def test_units_have_length_one_and_zero_stays_zero() -> None:
    vectors = unit(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]]))
    assert vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0], [1.0, 0.0]]


def _moved(table: References, mapped: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    return table.move(mapped, table.wanted(queries))


# The map


def test_one_view_with_bias_by_hand() -> None:
    adapter = Adapter(("large",), torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([0.0, 1.0]))
    # (3, 4) -> (0.6, 0.8) -> (1.6, 0.6) + (0, 1) = (1.6, 1.6) -> (1, 1) / sqrt 2.
    mapped = adapter.apply({"large": torch.tensor([[3.0, 4.0]]), "small": torch.ones(1, 9)})
    assert mapped.tolist() == [[pytest.approx(0.5**0.5)] * 2]


def test_two_views_are_scaled_one_by_one_and_joined_in_their_order() -> None:
    small, large = 7 * normal(6, 3, seed=1), 0.01 * normal(6, 5, seed=2)
    adapter = Adapter(("small", "large"), normal(3, 8))
    views = [view.numpy() for view in (small, large)]
    x = np.concatenate([v / np.linalg.norm(v, axis=1, keepdims=True) for v in views], axis=1)
    y = x @ adapter.weight.numpy().T
    expected = y / np.linalg.norm(y, axis=1, keepdims=True)
    mapped = adapter.apply({"large": large, "small": small})
    np.testing.assert_allclose(mapped.numpy(), expected, atol=1e-6)


def test_a_hidden_layer_is_added_to_the_linear_map() -> None:
    adapter = Adapter(
        ("large",),
        normal(3, 5),
        normal(3, seed=1),
        Hidden(normal(4, 5, seed=2), normal(4, seed=3), normal(3, 4, seed=4)),
    )
    queries = 3 * normal(6, 5, seed=5)
    expected = []
    for query in queries.tolist():
        x = np.array(query) / np.linalg.norm(query)
        inner = adapter.hidden.weight.numpy() @ x + adapter.hidden.bias.numpy()
        active = [h * 0.5 * (1 + math.erf(h / 2**0.5)) for h in inner]  # gelu
        y = adapter.weight.numpy() @ x + adapter.bias.numpy()
        y = y + adapter.hidden.output.numpy() @ np.array(active)
        expected.append(y / np.linalg.norm(y))
    mapped = adapter.apply({"large": queries})
    np.testing.assert_allclose(mapped.numpy(), np.array(expected), atol=1e-5)


def test_a_missing_view_is_named() -> None:
    with pytest.raises(FingerprintError, match=r"\['large'\] not given"):
        Adapter(("small", "large"), normal(3, 8)).apply({"small": torch.ones(1, 3)})


def test_vectors_of_another_dimension_are_refused() -> None:
    with pytest.raises(FingerprintError, match=r"expects 5 input dimensions.*have 4"):
        Adapter(("large",), normal(3, 5)).apply({"large": torch.ones(1, 4)})


def test_references_of_another_dimension_than_their_view_are_refused() -> None:
    adapter = Adapter(("large",), normal(3, 6), references=(_table(),))
    with pytest.raises(FingerprintError, match=r"expect 5 dimensions of the view large.*have 6"):
        adapter.apply({"large": torch.ones(1, 6)})


def test_views_in_each_others_place_are_refused() -> None:
    adapter = Adapter(("small", "large"), normal(3, 8))
    with pytest.raises(FingerprintError, match="not of one encoder"):
        adapter.apply({"small": torch.ones(1, 5), "large": torch.ones(1, 3)})


# References


def test_a_step_towards_references_by_hand() -> None:
    # The query is (1, 0); keys are the axes: p = softmax(1, 0) = (s, 1 - s) with s = e / (e + 1).
    # The mapped query is (0, 1); values are the axes: q = softmax(0, 1) = (1 - s, s).
    # p - q = (2 s - 1) (1, -1), so that half a step leads to (t, 1 - t) with t = s - 1/2.
    eye = torch.eye(2)
    table = References("large", eye, eye, temperature=1.0, step=0.5)
    t = math.e / (math.e + 1) - 0.5
    length = math.hypot(t, 1 - t)
    share = math.e / (math.e + 1)
    wanted = table.wanted(torch.tensor([[1.0, 0.0]]))
    assert wanted.tolist() == [[pytest.approx(share), pytest.approx(1 - share)]]
    moved = table.move(torch.tensor([[0.0, 1.0]]), wanted)
    assert moved.tolist() == [[pytest.approx(t / length), pytest.approx((1 - t) / length)]]


def test_without_contrast_a_query_moves_to_the_mean_of_the_near_references() -> None:
    # As above with q = 0: (0, 1) + 1/2 (s, 1 - s).
    eye = torch.eye(2)
    table = References("large", eye, eye, temperature=1.0, step=0.5, contrast=False)
    s = math.e / (math.e + 1)
    x, y = s / 2, 1 + (1 - s) / 2
    moved = _moved(table, torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    length = math.hypot(x, y)
    assert moved.tolist() == [[pytest.approx(x / length), pytest.approx(y / length)]]


@pytest.mark.parametrize("contrast", [True, False])
def test_a_step_of_nothing_leaves_vectors_as_they_are(contrast) -> None:
    mapped, queries = unit(normal(6, 3)), unit(normal(6, 5, seed=1))
    moved = _moved(_table(0.0, steps=3, contrast=contrast), mapped, queries)
    torch.testing.assert_close(moved, mapped)


def test_a_query_that_finds_what_it_should_stays() -> None:
    vectors = unit(normal(4, 3))
    values = unit(normal(12, 3, seed=2))
    table = References("small", values, values, temperature=0.1, step=0.5, steps=2)
    torch.testing.assert_close(_moved(table, vectors, vectors), vectors)


def test_a_move_is_a_gradient_step_on_the_cross_entropy() -> None:
    table = _table(0.4)
    mapped, queries = unit(normal(6, 3, seed=7)), unit(normal(6, 5, seed=8))
    leaf = mapped.double().requires_grad_()
    wanted = torch.softmax(queries.double() @ table.keys.double().T / 0.2, dim=1)
    found = torch.log_softmax(leaf @ table.values.double().T / 0.2, dim=1)
    (-(wanted * found)).sum().backward()
    expected = unit(mapped.double() - 0.4 * 0.2 * leaf.grad).float()
    torch.testing.assert_close(_moved(table, mapped, queries), expected)
    assert not torch.allclose(expected, mapped, atol=1e-2)


def test_several_steps_repeat_one() -> None:
    mapped, queries = unit(normal(6, 3)), unit(normal(6, 5, seed=1))
    by_ones = mapped
    for _ in range(3):
        by_ones = _moved(_table(), by_ones, queries)
    torch.testing.assert_close(_moved(_table(steps=3), mapped, queries), by_ones)


@pytest.mark.parametrize("elements", [1, 12, 30, 1000])
def test_blocks_equal_the_whole(monkeypatch, elements) -> None:
    mapped, queries = unit(normal(7, 3)), unit(normal(7, 5, seed=1))
    whole = _moved(_table(), mapped, queries)
    monkeypatch.setattr(maps, "_BLOCK_ELEMENTS", elements)
    torch.testing.assert_close(_moved(_table(), mapped, queries), whole)


def test_no_query_is_moved_to_nothing() -> None:
    assert _moved(_table(), torch.zeros(0, 3), torch.zeros(0, 5)).shape == (0, 3)


def test_an_adapter_applies_its_references_one_after_another() -> None:
    small, large = 5 * normal(6, 3, seed=3), 0.2 * normal(6, 5, seed=4)
    first = _table()
    second = References("small", unit(normal(4, 3, seed=5)), unit(normal(4, 3, seed=6)), 0.1, 0.3)
    hidden = Hidden(normal(4, 8, seed=2), normal(4, seed=3), normal(3, 4, seed=4))
    plain = Adapter(("small", "large"), normal(3, 8), hidden=hidden)
    views = {"small": small, "large": large}
    expected = _moved(second, _moved(first, plain.apply(views), unit(large)), unit(small))
    mapped = plain._replace(references=(first, second)).apply(views)
    torch.testing.assert_close(mapped, expected)
    turned = plain._replace(references=(second, first)).apply(views)
    assert not torch.allclose(mapped, turned, atol=1e-3)


def test_the_length_of_a_query_does_not_matter() -> None:
    adapter = Adapter(("large",), normal(3, 5), references=(_table(),))
    queries = normal(4, 5, seed=9)
    torch.testing.assert_close(
        adapter.apply({"large": queries}), adapter.apply({"large": 100 * queries})
    )


def test_size_counts_every_number() -> None:
    adapter = Adapter(("large",), normal(3, 5))
    assert adapter.size() == 15
    hidden = Hidden(normal(4, 5), normal(4), normal(3, 4))
    full = adapter._replace(bias=normal(3), hidden=hidden, references=(_table(), _table()))
    assert full.size() == 15 + 3 + (20 + 4 + 12) + 2 * (60 + 36)


def test_moving_to_a_device_keeps_everything() -> None:
    hidden = Hidden(normal(4, 5), normal(4), normal(3, 4))
    adapter = Adapter(("large",), normal(3, 5), normal(3), hidden, (_table(steps=2),))
    moved = adapter.to("meta")
    assert moved.weight.is_meta
    assert moved.bias.is_meta
    assert all(t.is_meta for t in moved.hidden)
    assert moved.references[0].keys.is_meta
    assert moved.references[0].values.is_meta
    assert moved.references[0].steps == 2
    views = {"large": normal(4, 5)}
    assert torch.equal(adapter.to("cpu").apply(views), adapter.apply(views))

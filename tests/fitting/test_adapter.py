"""What an adapter computes, against values worked by hand and plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planted import normal

from era_cache.errors import FingerprintError, InputError
from era_cache.fitting import adapter as maps
from era_cache.fitting.adapter import Adapter, Fusion, Hidden, References, unit


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


HIDDEN = Hidden(normal(4, 8, seed=2), normal(4, seed=3), normal(3, 4, seed=4))


@pytest.mark.parametrize("views", [("small", "large"), ("large", "small"), ("large",)])
@pytest.mark.parametrize("bias", [None, normal(3, seed=1)])
@pytest.mark.parametrize("hidden", [None, HIDDEN])
def test_views_of_length_one_are_joined_in_their_order_and_mapped(views, bias, hidden) -> None:
    width = {"small": 3, "large": 5}
    d_in = sum(width[view] for view in views)
    if hidden is not None:
        hidden = hidden._replace(weight=hidden.weight[:, :d_in])
    adapter = Adapter(views, normal(3, d_in), bias, hidden)
    given = {"small": 7 * normal(6, 3, seed=1), "large": 0.01 * normal(6, 5, seed=2)}
    mapped = adapter.apply(given)
    for row in range(6):
        parts = [given[view][row].double().numpy() for view in views]
        x = np.concatenate([part / np.linalg.norm(part) for part in parts])
        y = adapter.weight.numpy() @ x
        y = y if bias is None else y + bias.numpy()
        if hidden is not None:
            inner = hidden.weight.numpy() @ x + hidden.bias.numpy()
            active = [h * 0.5 * (1 + math.erf(h / 2**0.5)) for h in inner]  # gelu
            y = y + hidden.output.numpy() @ np.array(active)
        np.testing.assert_allclose(mapped[row].numpy(), y / np.linalg.norm(y), atol=1e-5)


BOTH = Adapter(("small", "large"), normal(3, 8))


@pytest.mark.parametrize(
    ("adapter", "dims", "message"),
    [
        (BOTH, {"small": 3}, r"\['large'\] not given"),
        (BOTH, {"small": 5, "large": 3}, r"documents have 3 dim.*queries 5.*not of one encoder"),
        (Adapter(("large",), normal(3, 5)), {"large": 4}, r"expects 5 input dimensions.*have 4"),
        (
            Adapter(("large",), normal(3, 6), references=(_table(),)),
            {"large": 6},
            r"expect 5 dimensions of the view large.*have 6",
        ),
    ],
)
def test_views_that_do_not_fit_are_refused(adapter, dims, message) -> None:
    with pytest.raises(FingerprintError, match=message):
        adapter.apply({view: torch.ones(1, dim) for view, dim in dims.items()})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rows_of_any_float_dtype_are_mapped(dtype) -> None:
    views = {"small": normal(4, 3).to(dtype), "large": normal(4, 5).to(dtype)}
    expected = BOTH.mapped({view: rows.float() for view, rows in views.items()})
    assert torch.equal(BOTH.apply(views), expected)
    if dtype != torch.bfloat16:  # numpy has none
        arrays = {view: rows.numpy() for view, rows in views.items()}
        found = BOTH.apply(arrays)  # an array where arrays came
        assert isinstance(found, np.ndarray)
        assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize(
    ("large", "message"),
    [
        (torch.ones(2, 5, dtype=torch.int64), r"queries\['large'\] holds torch.int64"),
        (torch.ones(5), r"queries\['large'\] has the shape \(5,\)"),
        (torch.tensor([[1.0] * 5, [torch.nan] * 5]), r"\['large'\]: row 1 holds NaN"),
        (torch.full((2, 5), 1e300, dtype=torch.float64), r"row 0 holds .* too large for float32"),
        (torch.zeros(2, 5), r"\['large'\]: row 0 is zero"),
        (torch.ones(3, 5), r"queries\['small'\] has 2 rows, but queries\['large'\] has 3"),
    ],
)
def test_rows_that_cannot_be_mapped_are_refused_by_view_and_row(large, message) -> None:
    with pytest.raises(InputError, match=message):
        BOTH.apply({"small": torch.ones(2, 3), "large": large})


@pytest.mark.parametrize("weight", [torch.zeros(2, 3), torch.full((2, 3), 3e38)])
def test_a_query_that_is_mapped_to_no_direction_is_an_error(weight) -> None:
    with pytest.raises(InputError, match="maps 2 of 2 queries to no direction, row 0 first"):
        Adapter(("large",), weight).apply({"large": torch.ones(2, 3)})


# References


def test_a_pull_leads_back_to_where_a_query_began() -> None:
    # Two steps by hand, in float64.
    table = _table(0.4)._replace(steps=2, pull=0.3)
    queries = unit(normal(5, table.keys.shape[1], seed=8))
    mapped = unit(normal(5, table.values.shape[1], seed=9))
    wanted = table.wanted(queries)
    expected, values = mapped.double(), table.values.double()
    for _ in range(2):
        found = torch.softmax(expected @ values.T / table.temperature, dim=1) @ values
        moved = expected + 0.4 * (wanted.double() - found) + 0.3 * (mapped.double() - expected)
        expected = moved / moved.norm(dim=1, keepdim=True)
    torch.testing.assert_close(table.move(mapped, wanted).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("contrast", [True, False])
def test_a_move_is_a_gradient_step_on_the_cross_entropy(contrast) -> None:
    table = _table(0.4, contrast=contrast)
    mapped, queries = unit(normal(6, 3, seed=7)), unit(normal(6, 5, seed=8))
    leaf = mapped.double().requires_grad_()
    wanted = torch.softmax(queries.double() @ table.keys.double().T / 0.2, dim=1)
    scores = leaf @ table.values.double().T / 0.2
    # Without contrast, what is found already does not push back.
    found = torch.log_softmax(scores, dim=1) if contrast else scores
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
    views = {"small": 5 * normal(6, 3, seed=3), "large": 0.2 * normal(6, 5, seed=4)}
    first = _table()
    second = References("small", unit(normal(4, 3, seed=5)), unit(normal(4, 3, seed=6)), 0.1, 0.3)
    plain = BOTH._replace(hidden=HIDDEN)
    expected = _moved(first, plain.apply(views), unit(views["large"]))
    expected = _moved(second, expected, unit(views["small"]))
    mapped = plain._replace(references=(first, second)).apply(views)
    torch.testing.assert_close(mapped, expected)
    turned = plain._replace(references=(second, first)).apply(views)
    assert not torch.allclose(mapped, turned, atol=1e-3)


FULL = Adapter(("small", "large"), normal(3, 8), normal(3), HIDDEN, (_table(steps=2), _table()))


def test_size_counts_every_number() -> None:
    assert BOTH.size() == 24
    assert FULL.size() == 24 + 3 + (32 + 4 + 12) + 2 * (60 + 36)


def test_moving_to_a_device_keeps_everything() -> None:
    moved = FULL.to("meta")
    tables = [tensor for table in moved.references for tensor in (table.keys, table.values)]
    assert all(t.is_meta for t in (moved.weight, moved.bias, *moved.hidden, *tables))
    assert [table.steps for table in moved.references] == [2, 1]
    views = {"small": normal(4, 3), "large": normal(4, 5)}
    assert torch.equal(FULL.to("cpu").apply(views), FULL.apply(views))


def test_an_adapter_moves_with_and_without_bias_and_hidden_layer() -> None:
    for bias in (None, normal(3, seed=1)):
        for hidden in (None, HIDDEN):
            adapter = Adapter(("large",), normal(3, 5), bias, hidden)
            moved = adapter.to("cpu")
            assert (moved.bias is None) == (bias is None)
            assert (moved.hidden is None) == (hidden is None)


def test_adapters_that_differ_in_what_joins_in_map_alike() -> None:
    copied = FULL.to("cpu")._replace(weight=FULL.weight.clone(), fusion=Fusion("bm25", 0.3))
    assert FULL.maps_as(copied)
    assert copied.maps_as(FULL)


@pytest.mark.parametrize(
    "changes",
    [
        {"views": ("large", "small")},
        {"weight": FULL.weight.clone().index_fill_(0, torch.tensor([2]), 0.5)},
        {"weight": FULL.weight.double()},
        {"bias": None},
        {"bias": torch.ones(3)},
        {"hidden": None},
        {"hidden": Hidden(*(tensor + 1 for tensor in HIDDEN))},
        {"references": ()},
        {"references": FULL.references[:1]},
        {"references": FULL.references[::-1]},
        *(
            {"references": (FULL.references[0]._replace(**one), *FULL.references[1:])}
            for one in (
                {"view": "small"},
                {"keys": FULL.references[0].keys + 1},
                {"values": -FULL.references[0].values},
                {"temperature": 0.3},
                {"step": 0.1},
                {"steps": 7},
                {"contrast": not FULL.references[0].contrast},
                {"pull": 0.2},
            )
        ),
    ],
)
def test_adapters_that_differ_in_anything_else_do_not_map_alike(changes) -> None:
    assert not FULL.maps_as(FULL._replace(**changes))
    assert not FULL._replace(**changes).maps_as(FULL)


def test_unit_works_on_the_last_axis() -> None:
    assert unit(torch.tensor([3.0, 4.0])).tolist() == [pytest.approx(0.6), pytest.approx(0.8)]
    assert unit(torch.ones(2, 3, 4)).norm(dim=-1).allclose(torch.ones(2, 3))

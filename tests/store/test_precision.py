"""Stored forms: what may be stored, in which form, and how much of it comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from era_cache.errors import EncoderError
from era_cache.store.precision import StoredRows, all_finite, check_vectors


def check(vectors, dtype="float32"):
    return check_vectors(np.array(vectors, "f4"), dtype, lambda row: f"text {row}", "M")


def test_good_vectors_are_converted_and_nothing_else():
    stored = check([[3, 4], [0, -2]], "float16")
    assert stored.values.dtype == np.float16
    assert stored.scales is None
    assert stored.values.tolist() == [[3, 4], [0, -2]]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([np.nan, 1], "M returned NaN or infinite values for text 1"),
        ([1, -np.inf], "M returned NaN or infinite values for text 1"),
        ([0, 0], "M returned a vector of zeros for text 1"),
        ([70000, 1], "M returned values too large for float16 for text 1.*float32"),
    ],
)
def test_a_bad_vector_names_its_row(bad, message):
    with pytest.raises(EncoderError, match=message):
        check([[1, 2], bad, [3, 4]], "float16")


@given(
    exponent=st.integers(-40, 10),
    row=hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1, 1, width=32)),
)
def test_float16_keeps_the_direction_of_a_row_or_refuses_it(exponent, row) -> None:
    row = np.append(row, np.float32(1)) * np.float32(2.0**exponent)
    exact = row.astype("f8")
    rounded = row.astype("f2").astype("f8")
    lengths = np.linalg.norm(exact) * np.linalg.norm(rounded)
    if lengths and exact @ rounded / lengths >= 0.999:
        assert check([row], "float16").values.tolist() == [rounded.tolist()]
    else:
        with pytest.raises(EncoderError, match=r"values too small for float16.*--dtype float32"):
            check([row], "float16")
    assert check([row]).values.tolist() == [row.tolist()]


def test_a_large_value_is_fine_in_float32():
    assert check([[70000, 1]]).values.tolist() == [[70000, 1]]


def test_bad_vectors_are_counted():
    with pytest.raises(EncoderError, match=r"text 0 \(2 such rows"):
        check([[0, 0], [1, 1], [np.nan, 1]])


def test_int8_keeps_the_largest_value_of_a_row_exactly_and_rounds_the_others():
    stored = check([[127, 1, -64, 0.4], [0, 0, -0.5, 0.25]], "int8")
    assert stored.values.tolist() == [[127, 1, -64, 0], [0, 0, -127, 64]]
    np.testing.assert_allclose(stored.scales, [1, 0.5 / 127], rtol=1e-6)
    back = stored.to_float32()
    assert back.dtype == np.float32
    np.testing.assert_allclose(back[:, :2], [[127, 1], [0, 0]], rtol=1e-6)


floats = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.floats(-(2.0**99), 2.0**99, width=32).filter(lambda v: v == 0 or abs(v) > 1e-30),
)


@given(floats.filter(lambda rows: rows.any(axis=1).all()))
def test_int8_is_never_off_by_more_than_half_a_step(vectors):
    stored = check(vectors, "int8")
    steps = np.abs(vectors).max(axis=1) / 127
    off = np.abs(stored.to_float32().astype("f8") - vectors).max(axis=1)
    assert (off <= 0.5001 * steps).all()
    assert np.abs(stored.values).max(axis=1).tolist() == [127] * len(vectors)


@pytest.mark.parametrize("bad", [[np.nan, 1], [np.inf, 1], [0, 0]])
def test_int8_refuses_what_the_other_forms_refuse(bad):
    with pytest.raises(EncoderError, match="for text 1"):
        check([[1, 2], bad], "int8")


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_stored_rows_are_put_and_taken_by_place(dtype):
    rows = check([[1, 2], [3, -4], [5, 6]], dtype)
    room = StoredRows.empty(5, 2, dtype)
    room.put(slice(0, 5), check(np.full((5, 2), 9), dtype))
    room.put([4, 0, 2], rows)
    np.testing.assert_array_equal(room.take(np.array([4, 0, 2])).to_float32(), rows.to_float32())
    np.testing.assert_allclose(room.take(slice(1, 2)).to_float32(), [[9, 9]], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_seen(dtype, bad):
    values = np.array([[1, -2], [np.finfo(dtype).max, np.finfo(dtype).min]], dtype)
    assert all_finite(values)
    values[1, 0] = bad
    assert not all_finite(values)
    assert all_finite(values[:0])


def test_integers_are_finite():
    assert all_finite(np.array([[127, -127]], np.int8))

"""Settings as people write them: every kind is read, and what cannot be is refused by name."""

from __future__ import annotations

import dataclasses
import math

import pytest

from era_cache.config import FitConfig
from era_cache.errors import InputError
from era_cache.fitting import settings
from era_cache.fitting.settings import checked, grid, parse_setting, shown, with_settings


def _replaced(**changes: object) -> FitConfig:
    return dataclasses.replace(FitConfig(), **changes)


# One setting


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("temperature=0.03", "temperature", 0.03),
        ("temperature = 1e-2", "temperature", 0.01),
        ("iterations=12", "iterations", 12),
        ("reference_documents=0", "reference_documents", 0),
        ("refit=false", "refit", False),
        ("refit=No", "refit", False),
        ("learn_temperature=TRUE", "learn_temperature", True),
        ("learn-temperature=1", "learn_temperature", True),
        ("strengths=24/8/2.5", "strengths", (24.0, 8.0, 2.5)),
        ("strengths=", "strengths", ()),
        ("scales=0.5", "scales", (0.5,)),
        ("memory-steps=", "memory_steps", ()),
        ("reference_steps=0/0.25/0.5x2", "reference_steps", ((0.0, 1), (0.25, 1), (0.5, 2))),
        ("default-reference-step=0.3x4", "default_reference_step", (0.3, 4)),
        ("default_reference_step=0.3", "default_reference_step", (0.3, 1)),
        ("default_reference_step=0.3x", "default_reference_step", (0.3, 1)),
        ("align=procrustes-centred", "align", "procrustes-centred"),
    ],
)
def test_a_setting_is_read_as_its_kind(text, name, value) -> None:
    found = parse_setting(text)
    assert found == (name, value)
    assert type(found[1]) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iterations=8.5", "a whole number"),
        ("iterations=", "a whole number"),
        ("iterations=true", "a whole number"),
        ("temperature=warm", "a number"),
        ("refit=maybe", "true or false"),
        ("refit=2", "true or false"),
        ("strengths=24;8", "numbers with / between"),
        ("reference_steps=", "steps with / between"),
        ("reference_steps=0.5x2x3", "steps with / between"),
        ("reference_steps=0.5x1.5", "steps with / between"),
        ("default_reference_step=0.1/0.2", "a step and how often"),
    ],
)
def test_a_malformed_value_is_refused_with_what_was_expected(text, expected) -> None:
    with pytest.raises(InputError, match=f"^Setting '{text}': expected {expected}"):
        parse_setting(text)


@pytest.mark.parametrize(
    "text", ["warmth=1", "temperature", "=1", "", "Temperature=1", "__doc__=1"]
)
def test_an_unknown_name_is_refused_with_those_that_exist(text) -> None:
    with pytest.raises(InputError, match=r"expected NAME=VALUE with one of seed, align, .*stack_b"):
        parse_setting(text)


@pytest.mark.parametrize("field", dataclasses.fields(FitConfig), ids=lambda field: field.name)
def test_every_default_is_read_back_from_how_it_is_shown(field) -> None:
    value = getattr(FitConfig(), field.name)
    text = f"{field.name}={shown(field.name, value)}"
    assert parse_setting(text) == (field.name, value)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("strengths", (24.0, 8.0, 2.5), "24/8/2.5"),
        ("scales", (0.123456789, 1e-7), "0.123456789/1e-07"),
        ("reference_steps", ((0.0, 1), (0.5, 2)), "0x1/0.5x2"),
        ("default_reference_step", (0.5, 2), "0.5x2"),
        ("memory_steps", (), ""),
    ],
)
def test_several_numbers_are_shown_without_loss(name, value, text) -> None:
    assert shown(name, value) == text
    assert parse_setting(f"{name}={text}") == (name, value)


def test_plain_values_are_shown_as_they_are() -> None:
    assert shown("temperature", 0.05) == 0.05
    assert shown("refit", False) is False
    assert shown("align", "ridge") == "ridge"


# Configurations


def test_settings_change_what_they_name_and_nothing_else() -> None:
    changed = with_settings(FitConfig(), ["align=ridge", "few-folds=4", "strengths=9/9/1"])
    assert changed == _replaced(align="ridge", few_folds=4, strengths=(9.0, 9.0, 1.0))
    assert with_settings(FitConfig(), []) == FitConfig()


def test_of_a_setting_given_twice_the_last_counts() -> None:
    assert with_settings(FitConfig(), ["folds=3", "folds=4"]).folds == 4


LEAST = {
    "seed": 0,
    "align_documents": 1,
    "rank": 1,
    "hidden": 1,
    "iterations": 1,
    "folds": 2,
    "few_folds": 2,
    "many_labels": 1,
    "reference_documents": 0,
    "negatives_per_query": 1,
    "pool_documents": 1,
    "mined_per_query": 1,
    "block_bytes": 4096,
    "stack_bytes": 1 << 20,
}


def test_every_whole_number_has_a_bound() -> None:
    whole = [f.name for f in dataclasses.fields(FitConfig) if type(f.default) is int]
    assert sorted(LEAST) == sorted(whole)


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_whole_numbers_are_bounded_from_below_and_above(name, least) -> None:
    assert getattr(with_settings(FitConfig(), [f"{name}={least}"]), name) == least
    with pytest.raises(InputError, match=f"^{name} {least - 1}: expected at least {least}"):
        with_settings(FitConfig(), [f"{name}={least - 1}"])
    most = 2**16 if name in ("rank", "hidden") else 2**63 - 1
    assert with_settings(FitConfig(), [f"{name}={most}"])
    with pytest.raises(InputError, match=f"^{name} {2**63}: expected at most"):
        with_settings(FitConfig(), [f"{name}={2**63}"])


@pytest.mark.parametrize(
    "name", ["temperature", "reference_temperature", "memory_temperature", "duplicates"]
)
def test_temperatures_and_the_like_are_above_zero_and_finite(name) -> None:
    assert getattr(with_settings(FitConfig(), [f"{name}=1e-6"]), name) == 1e-6
    for value in ("0", "1e-7", "-0.1", "nan", "inf", "-inf", "1e999"):
        with pytest.raises(InputError, match=f"^{name} .*expected at (least|most)"):
            with_settings(FitConfig(), [f"{name}={value}"])


@pytest.mark.parametrize(
    "name",
    ["strengths", "scales", "memory_steps", "reference_steps", "default_reference_step"],
)
def test_lists_of_numbers_hold_no_negative_or_endless_one(name) -> None:
    assert with_settings(FitConfig(), [f"{name}=0"])
    for value in ("-1", "nan", "inf"):
        with pytest.raises(InputError, match=rf"^{name} \(.*expected numbers that are not neg"):
            with_settings(FitConfig(), [f"{name}={value}"])


def test_a_bad_number_is_found_anywhere_in_a_list() -> None:
    for text in (
        "strengths=8/nan",
        "scales=1/2/-3",
        "reference_steps=0.1/inf",
        "memory_steps=0/-1",
    ):
        with pytest.raises(InputError, match="not negative"):
            with_settings(FitConfig(), [text])


@pytest.mark.parametrize("text", ["strengths=2.5/8", "strengths=8/2/3"])
def test_strengths_that_rise_are_refused(text) -> None:
    with pytest.raises(InputError, match="expected from strong to weak"):
        with_settings(FitConfig(), [text])


def test_lists_that_something_is_chosen_from_are_not_empty() -> None:
    with pytest.raises(InputError, match=r"^scales: expected at least one number"):
        with_settings(FitConfig(), ["scales="])
    with pytest.raises(InputError, match=r"^reference_steps: expected at least one number"):
        checked(_replaced(reference_steps=()))
    assert with_settings(FitConfig(), ["memory_steps=", "strengths="]).memory_steps == ()


@pytest.mark.parametrize("name", ["reference_steps", "default_reference_step"])
def test_a_reference_moves_once_to_a_hundred_times(name) -> None:
    assert with_settings(FitConfig(), [f"{name}=0.1x1"])
    assert with_settings(FitConfig(), [f"{name}=0.1x100"])
    for count in (0, 101, -1):
        with pytest.raises(InputError, match=rf"^{name} \(.*expected 1 to 100 steps each"):
            with_settings(FitConfig(), [f"{name}=0.1x{count}"])


@pytest.mark.parametrize("name", ["align", "align_texts", "shape", "negatives"])
def test_a_choice_that_does_not_exist_is_refused(name) -> None:
    with pytest.raises(InputError, match=f"^{name} 'best': expected one of "):
        with_settings(FitConfig(), [f"{name}=best"])


def test_every_text_setting_has_choices() -> None:
    texts = [f.name for f in dataclasses.fields(FitConfig) if type(f.default) is str]
    assert sorted(settings._CHOICES) == sorted(texts)


def test_every_float_setting_is_bounded() -> None:
    numbers = [f.name for f in dataclasses.fields(FitConfig) if type(f.default) is float]
    for name in numbers:
        with pytest.raises(InputError):
            checked(_replaced(**{name: math.nan}))


# Grids


def test_a_grid_is_the_product_in_order_the_last_name_moving_fastest() -> None:
    assert grid(["temperature=0.1,0.05", "align=ridge,mixture"]) == [
        {"temperature": 0.1, "align": "ridge"},
        {"temperature": 0.1, "align": "mixture"},
        {"temperature": 0.05, "align": "ridge"},
        {"temperature": 0.05, "align": "mixture"},
    ]


def test_a_grid_of_nothing_is_the_recipe_as_it_is() -> None:
    assert grid([]) == [{}]


def test_lists_keep_their_slashes_in_a_grid() -> None:
    assert grid(["strengths=24/8,8", "reference-steps=0/0.5x2"]) == [
        {"strengths": (24.0, 8.0), "reference_steps": ((0.0, 1), (0.5, 2))},
        {"strengths": (8.0,), "reference_steps": ((0.0, 1), (0.5, 2))},
    ]


def test_values_that_are_equal_are_fitted_once() -> None:
    assert grid(["temperature=0.1,0.10,1e-1,0.2"]) == [{"temperature": 0.1}, {"temperature": 0.2}]


@pytest.mark.parametrize("again", ["temperature=0.2", " temperature =0.2"])
def test_a_name_given_twice_is_refused(again) -> None:
    with pytest.raises(InputError, match="is given twice; name all its values at once"):
        grid(["temperature=0.1", again])


def test_dashes_and_underscores_are_one_name() -> None:
    with pytest.raises(InputError, match="is given twice"):
        grid(["few-folds=2", "few_folds=3"])


@pytest.mark.parametrize("text", ["temperature=0.1,,0.2", "temperature=", "temperature", "t=1,2"])
def test_a_grid_refuses_what_a_setting_would(text) -> None:
    with pytest.raises(InputError, match=r"^Setting "):
        grid([text])

"""Settings as people write them: every kind is read, and what cannot be is refused by name."""

from __future__ import annotations

import dataclasses

import pytest

from era_cache.errors import InputError
from era_cache.fitting.config import FitConfig
from era_cache.fitting.settings import checked, grid, parse_setting, shown, with_settings

# One setting


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("temperature = 1e-2", "temperature", 0.01),
        ("reference_documents=0", "reference_documents", 0),
        ("refit=false", "refit", False),
        ("refit=No", "refit", False),
        ("learn_temperature=TRUE", "learn_temperature", True),
        ("learn-temperature=1", "learn_temperature", True),
        ("strengths=24/8/2.5", "strengths", (24.0, 8.0, 2.5)),
        ("strengths=", "strengths", ()),
        ("reference_steps=0/0.25/0.5x2", "reference_steps", ((0.0, 1), (0.25, 1), (0.5, 2))),
        ("default-reference-step=0.3x4", "default_reference_step", (0.3, 4)),
        ("default_reference_step=0.3", "default_reference_step", (0.3, 1)),
        ("default_reference_step=0.3x", "default_reference_step", (0.3, 1)),
    ],
)
def test_a_setting_is_read_as_its_kind(text, name, value) -> None:
    found = parse_setting(text)
    assert found == (name, value)
    assert type(found[1]) is type(value)


@pytest.mark.parametrize(
    ("expected", "texts"),
    [
        ("a whole number", ["iterations=8.5", "iterations=", "iterations=true"]),
        ("a number", ["temperature=warm"]),
        ("true or false", ["refit=maybe", "refit=2"]),
        ("numbers with / between", ["strengths=24;8"]),
        ("steps with / between", [f"reference_steps={v}" for v in ("", "0.5x2x3", "0.5x1.5")]),
        ("a step and how often", ["default_reference_step=0.1/0.2"]),
        (
            "NAME=VALUE with one of seed, align, .*stack_b",
            ["warmth=1", "temperature", "=1", "", "Temperature=1", "__doc__=1"],
        ),
    ],
)
def test_a_malformed_setting_is_refused_with_what_was_expected(expected, texts) -> None:
    for text in texts:
        with pytest.raises(InputError, match=f"^Setting '{text}': expected {expected}"):
            parse_setting(text)


DEFAULTS = [(f.name, f.default, None) for f in dataclasses.fields(FitConfig)]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        *DEFAULTS,
        ("strengths", (24.0, 8.0, 2.5), "24/8/2.5"),
        ("scales", (0.123456789, 1e-7), "0.123456789/1e-07"),
        ("reference_steps", ((0.0, 1), (0.5, 2)), "0x1/0.5x2"),
        ("default_reference_step", (0.5, 2), "0.5x2"),
        ("memory_steps", (), ""),
    ],
)
def test_values_are_read_back_from_how_they_are_shown(name, value, text) -> None:
    if not isinstance(value, tuple):
        assert shown(name, value) is value
    assert text in (None, shown(name, value))
    found = parse_setting(f"{name}={shown(name, value)}")
    assert found == (name, value)
    assert type(found[1]) is type(value)


# Configurations


def test_settings_change_what_they_name_and_nothing_else_and_the_last_counts() -> None:
    texts = ["align=ridge", "few-folds=3", "few-folds=4", "strengths=9/9/1"]
    changes = {"align": "ridge", "few_folds": 4, "strengths": (9.0, 9.0, 1.0)}
    assert with_settings(FitConfig(), texts) == dataclasses.replace(FitConfig(), **changes)
    assert with_settings(FitConfig(), []) == FitConfig()


LEAST = {"folds": 2, "few_folds": 2, "block_bytes": 4096, "stack_bytes": 1 << 20}
LEAST |= {"seed": 0, "reference_documents": 0}


def _of_kind(kind: type) -> list[str]:
    return [name for name, default, _ in DEFAULTS if type(default) is kind]


def _refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_settings(FitConfig(), [text])


@pytest.mark.parametrize("name", _of_kind(int))
def test_whole_numbers_are_bounded_from_below_and_above(name) -> None:
    least, most = LEAST.get(name, 1), 2**16 if name in ("rank", "hidden") else 2**63 - 1
    for value in (least, most):
        assert getattr(with_settings(FitConfig(), [f"{name}={value}"]), name) == value
    _refused(f"{name}={least - 1}", f"^{name} {least - 1}: expected at least {least}")
    _refused(f"{name}={most + 1}", f"^{name} {most + 1}: expected at most {most}")


@pytest.mark.parametrize("name", _of_kind(float))
def test_temperatures_and_the_like_are_above_zero_and_finite(name) -> None:
    assert getattr(with_settings(FitConfig(), [f"{name}=1e-6"]), name) == 1e-6
    may_be_nothing = name in ("spread", "zero_pull", "zero_scale", "fusion_default")
    small = () if may_be_nothing else ("0", "1e-7")
    for value in (*small, "-0.1", "nan", "inf", "-inf", "1e999"):
        _refused(f"{name}={value}", f"^{name} .*expected at (least|most)")


@pytest.mark.parametrize("name", _of_kind(tuple))
def test_lists_of_numbers_hold_no_negative_or_endless_one(name) -> None:
    assert with_settings(FitConfig(), [f"{name}=0"])
    several = () if name in ("default_reference_step", "zero_step") else ("3/2/-1", "3/inf/1")
    for value in ("-1", "nan", "inf", *several):
        _refused(f"{name}={value}", rf"^{name} \(.*expected numbers that are not negative")


@pytest.mark.parametrize("text", ["strengths=2.5/8", "strengths=8/2/3"])
def test_strengths_that_rise_are_refused(text) -> None:
    _refused(text, "expected from strong to weak")


@pytest.mark.parametrize("name", ["reference_steps", "default_reference_step", "zero_step"])
def test_a_reference_moves_once_to_a_hundred_times(name) -> None:
    for count in (1, 100):
        assert with_settings(FitConfig(), [f"{name}=0.1x{count}"])
    for count in (0, 101, -1):
        _refused(f"{name}=0.1x{count}", rf"^{name} \(.*expected 1 to 100 steps each")


@pytest.mark.parametrize("name", _of_kind(str))
def test_a_choice_that_does_not_exist_is_refused(name) -> None:
    _refused(f"{name}=best", f"^{name} 'best': expected one of ")


def test_lists_that_something_is_chosen_from_are_not_empty() -> None:
    _refused("scales=", r"^scales: expected at least one number")
    with pytest.raises(InputError, match=r"^reference_steps: expected at least one number"):
        checked(dataclasses.replace(FitConfig(), reference_steps=()))
    assert with_settings(FitConfig(), ["memory_steps=", "strengths="]).memory_steps == ()


# Grids


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        # The product in order, the last name moving fastest; equal values are fitted once.
        (
            ["temperature=0.1,0.10,1e-1,0.05", "align=ridge,mixture"],
            [{"temperature": t, "align": a} for t in (0.1, 0.05) for a in ("ridge", "mixture")],
        ),
        # Nothing is the recipe as it is.
        ([], [{}]),
        # Lists keep their slashes.
        (["strengths=24/8,8"], [{"strengths": (24.0, 8.0)}, {"strengths": (8.0,)}]),
        (["reference-steps=0/0.5x2"], [{"reference_steps": ((0.0, 1), (0.5, 2))}]),
    ],
)
def test_a_grid_is_all_combinations(texts, expected) -> None:
    assert grid(texts) == expected


@pytest.mark.parametrize("again", ["few_folds=2", " few_folds =2", "few-folds=2"])
def test_a_name_given_twice_is_refused(again) -> None:
    with pytest.raises(InputError, match="is given twice; name all its values at once"):
        grid(["few_folds=3", again])


@pytest.mark.parametrize("text", ["temperature=0.1,,0.2", "temperature=", "temperature", "t=1,2"])
def test_a_grid_refuses_what_a_setting_would(text) -> None:
    with pytest.raises(InputError, match=r"^Setting "):
        grid([text])

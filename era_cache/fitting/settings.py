"""Settings of the recipes by name, as people write them on the command line.

In: ``name=value`` texts. Out: a checked ``FitConfig`` or ``PaperConfig``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from era_cache.errors import InputError
from era_cache.fitting.alignment.methods import ALIGNMENTS
from era_cache.fitting.config import FitConfig, PaperConfig
from era_cache.fitting.mining import NEGATIVES, STRATEGIES
from era_cache.fitting.starts import ALIGN_TEXTS
from era_cache.fitting.trained_part import SHAPES

__all__ = [
    "checked",
    "grid",
    "parse_setting",
    "recipe_record",
    "recorded_recipe",
    "shown",
    "with_settings",
]

_CHOICES = {
    "align": ("auto", *ALIGNMENTS),
    "align_texts": ALIGN_TEXTS,
    "shape": SHAPES,
    "negatives": NEGATIVES,
}
_PAPER_CHOICES = {
    "mode": ("both", "alignment_only", "label_only"),
    "align_loss": ("cosine", "mse", "smooth_l1"),
    "strategy": STRATEGIES,
}
_LARGEST = 2**63 - 1
"""Of whole numbers: torch takes no larger seed."""
_WIDEST = 1 << 16
_POSITIVE = (1e-6, sys.float_info.max)
_BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, _LARGEST),
    "align_documents": (1, _LARGEST),
    "rank": (1, _WIDEST),
    "hidden": (1, _WIDEST),
    "temperature": _POSITIVE,
    "iterations": (1, _LARGEST),
    "folds": (2, _LARGEST),
    "few_folds": (2, _LARGEST),
    "many_labels": (1, _LARGEST),
    "spread": (0, 1),
    "spread_shrink": (1e-6, 1),
    "zero_scale": (0, 1e6),
    "zero_temperature": _POSITIVE,
    "zero_pull": (0, 1),
    "fusion_default": (0, 1e6),
    "reference_documents": (0, _LARGEST),
    "reference_temperature": _POSITIVE,
    "memory_temperature": _POSITIVE,
    "negatives_per_query": (1, _LARGEST),
    "duplicates": _POSITIVE,
    "pool_documents": (1, _LARGEST),
    "judge_exactly": (1, _LARGEST),
    "mined_per_query": (1, _LARGEST),
    "block_bytes": (1 << 12, _LARGEST),
    "stack_bytes": (1 << 20, _LARGEST),
}
"""Least and largest value of every number."""
_PAPER_BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, _LARGEST),
    "align_documents": (1, _LARGEST),
    "align_learning_rate": _POSITIVE,
    "align_weight_decay": (0, 1),
    "align_epochs": (1, _LARGEST),
    "align_holdout": (0, 0.9),
    "batch": (1, _LARGEST),
    "epochs": (1, _LARGEST),
    "patience": (1, _LARGEST),
    "warmup": (0, 1),
    "negatives": (1, _WIDEST),
    "mine_top": (1, _LARGEST),
    "positive_share": (0, 1),
    "temperature": _POSITIVE,
}
_SINGLE_STEPS = ("default_reference_step", "zero_step")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
        raise ValueError
    return text.lower() in ("true", "yes", "1")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("/") if part)


def _step(text: str) -> tuple[float, int]:
    step, _, steps = text.partition("x")
    return float(step), int(steps or 1)


def _steps(text: str) -> tuple[tuple[float, int], ...]:
    return tuple(_step(part) for part in text.split("/"))


_LISTS = ("strengths", "scales", "memory_steps", "fusion_weights")
_PAPER_LISTS = ("learning_rates", "weight_decays")
Recipe = TypeVar("Recipe", FitConfig, PaperConfig)


def _parser(name: str, default: object) -> tuple[Callable[[str], Any], str]:
    """How a field is read, and what to say of it."""
    if name in (*_LISTS, *_PAPER_LISTS):
        return _numbers, "numbers with / between them, such as 24/8/2.5"
    if name == "reference_steps":
        return _steps, "steps with / between them, such as 0/0.25/0.5x2"
    if name in _SINGLE_STEPS:
        return _step, "a step and how often, such as 0.5x2"
    if isinstance(default, bool):
        return _boolean, "true or false"
    if isinstance(default, int):
        return int, "a whole number"
    if isinstance(default, float):
        return float, "a number"
    return str, "a name"


def parse_setting(text: str, of: FitConfig | PaperConfig | None = None) -> tuple[str, Any]:
    """Read ``name=value``, a setting of a recipe; None is the default one.

    Raises:
        InputError: there is no such setting, or the value is none of its kind.
    """
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    recipe = FitConfig() if of is None else of
    known = [field.name for field in dataclasses.fields(recipe)]
    if not equals or name not in known:
        raise InputError(f"Setting {text!r}: expected NAME=VALUE with one of {', '.join(known)}.")
    read, expected = _parser(name, getattr(recipe, name))
    try:
        return name, read(value.strip())
    except ValueError as error:
        raise InputError(f"Setting {text!r}: expected {expected}.") from error


def shown(name: str, value: Any) -> Any:
    """A setting's value as ``parse_setting`` reads it; plain values stay as they are."""
    if not isinstance(value, tuple):
        return value
    several = (value,) if name in _SINGLE_STEPS else value
    return "/".join(
        "x".join(map(_digits, one)) if isinstance(one, tuple) else _digits(one) for one in several
    )


def _digits(number: float) -> str:
    return repr(number).removesuffix(".0")


def with_settings(config: Recipe, texts: Sequence[str]) -> Recipe:
    """The configuration with some settings changed.

    Raises:
        InputError: a setting is unknown, malformed or impossible.
    """
    changes = dict(parse_setting(text, config) for text in texts)
    return checked(dataclasses.replace(config, **changes))


def grid(texts: Sequence[str]) -> list[dict[str, Any]]:
    """All combinations of ``name=value,value,...``, the last name moving fastest.

    Raises:
        InputError: a name is unknown or given twice, or a value is malformed.
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        parsed = [parse_setting(f"{name}{equals}{value}") for value in values.split(",")]
        if parsed[0][0] in axes:
            raise InputError(f"Setting {name!r} is given twice; name all its values at once.")
        axes[parsed[0][0]] = list(dict.fromkeys(value for _, value in parsed))
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def checked(config: Recipe) -> Recipe:
    """The same configuration, if it is possible.

    Raises:
        InputError: a value is out of range; the message names it.
    """
    if isinstance(config, PaperConfig):
        _check_values(dataclasses.asdict(config), _PAPER_CHOICES, _PAPER_BOUNDS)
        _check_rates(config)
    else:
        _check_values(dataclasses.asdict(config), _CHOICES, _BOUNDS)
        _check_lists(config)
    return config


def _check_values(
    values: Mapping[str, Any],
    choices_of: Mapping[str, Sequence[str]],
    bounds: Mapping[str, tuple[float, float]],
) -> None:
    for name, choices in choices_of.items():
        if values[name] not in choices:
            raise InputError(f"{name} {values[name]!r}: expected one of {', '.join(choices)}.")
    for name, (least, most) in bounds.items():
        if not values[name] >= least:  # nor is NaN
            raise InputError(f"{name} {values[name]}: expected at least {least}.")
        if values[name] > most:
            raise InputError(f"{name} {values[name]}: expected at most {most}.")


def _check_rates(config: PaperConfig) -> None:
    rates, decays = config.learning_rates, config.weight_decays
    if not rates or len(rates) != len(decays):
        raise InputError(
            f"learning_rates {rates}, weight_decays {decays}: expected one decay for each rate."
        )
    if not all(0 < rate < math.inf for rate in rates) or not all(0 <= one < 1 for one in decays):
        raise InputError(f"learning_rates {rates}, weight_decays {decays}: out of range.")


def _check_lists(config: FitConfig) -> None:
    values = dataclasses.asdict(config)
    steps = {
        "reference_steps": config.reference_steps,
        **{name: (values[name],) for name in _SINGLE_STEPS},
    }
    lists = {
        "strengths": config.strengths,
        "scales": config.scales,
        "memory_steps": config.memory_steps,
        "fusion_weights": config.fusion_weights,
        **{name: [step for step, _ in pairs] for name, pairs in steps.items()},
    }
    for name, numbers in lists.items():
        if not all(0 <= number < math.inf for number in numbers):
            raise InputError(f"{name} {values[name]}: expected numbers that are not negative.")
        if not numbers and name in ("scales", "reference_steps"):
            raise InputError(f"{name}: expected at least one number.")
    if list(config.strengths) != sorted(config.strengths, reverse=True):
        raise InputError(f"strengths {config.strengths}: expected from strong to weak.")
    for name, pairs in steps.items():
        if not all(1 <= count <= 100 for _, count in pairs):
            raise InputError(f"{name} {values[name]}: expected 1 to 100 steps each.")


def recipe_record(recipe: FitConfig | PaperConfig) -> dict[str, Any]:
    """A recipe as results keep it (JSON); the default one has no name."""
    named = {"name": "paper"} if isinstance(recipe, PaperConfig) else {}
    return {**named, **dataclasses.asdict(recipe)}


def recorded_recipe(recorded: Mapping[str, Any]) -> FitConfig | PaperConfig:
    """Read a recipe from JSON, which has lists for tuples.

    Raises:
        ValueError: a setting that this version does not know.
        TypeError: a value of another kind.
        InputError: an impossible value.
    """
    values = dict(recorded)
    if values.pop("name", "era") == "paper":
        return checked(_recipe(PaperConfig, values))
    return checked(_recipe(FitConfig, values))


def _recipe(kind: type[Recipe], recorded: Mapping[str, Any]) -> Recipe:
    defaults = dataclasses.asdict(kind())
    unknown = sorted(set(recorded) - set(defaults))
    if unknown:
        raise ValueError(f"this version knows no settings {', '.join(unknown)}")
    values = {name: _tuples(value) for name, value in recorded.items()}
    for name, value in values.items():
        number = isinstance(defaults[name], float) and type(value) is int
        if type(value) is not type(defaults[name]) and not number:
            raise TypeError(f"{name} {value!r}")
    return kind(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value

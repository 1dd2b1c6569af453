"""Which candidate ships."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from era_cache.errors import InputError
from era_cache.fitting.adapter import Adapter, Fusion
from era_cache.fitting.candidates import FUSED, fused_name
from era_cache.fitting.choice import _Judges, choose
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.signs import Signs


def _fitted(*values: float, also: Sequence[float] | None = None) -> Fitted:
    """A candidate with these values, and those of a second collection."""
    collections = [values] if also is None else [values, also]
    adapter = Adapter(("small",), torch.eye(2))
    return Fitted(adapter, tuple(np.array(v, dtype=np.float64) for v in collections), {})


SMALL = {"small": _fitted(*[0.5] * 60)}


def _many(*values: float) -> list[float]:
    """Sixty judging queries: from fifty on, a standard error is no guess."""
    return list(values) * (60 // len(values))


@pytest.mark.parametrize(
    ("values", "chosen", "reason"),
    [
        # Gains 0, 0, 0.4, 0.4, 15 times: mean 0.2, variance 60 / 59 * 0.04, standard error 0.026.
        (
            {"era": (0.5, 0.5, 0.9, 0.9)},
            "era",
            "0.700 against 0.500 of small (+0.200, standard error 0.026, 60 queries",
        ),
        # Gains -0.3, 0, 0, 0.4: mean 0.025, mean square 0.0625, standard error 0.032.
        (
            {"era": (0.2, 0.5, 0.5, 0.9)},
            "small",
            "era is not better than small by one standard error",
        ),
        ({"era": (0.4,)}, "small", "no adapter beat"),
        ({"era": (0.5,)}, "small", "no adapter beat"),  # as good
        ({"aligned": (0.6,), "era": (0.6, 0.7, 0.8, 0.9)}, "era", "0.750 against 0.500"),
        # Values spread widely, but every query gains 0.1: differences are paired.
        (
            {"small": (0.0, 0.3, 0.6, 0.9), "era": (0.1, 0.4, 0.7, 1.0)},
            "era",
            "standard error 0.000",
        ),
    ],
)
def test_what_gains_more_than_one_standard_error_of_the_paired_difference_ships(
    values, chosen, reason
) -> None:
    choice = choose(SMALL | {name: _fitted(*_many(*own)) for name, own in values.items()})
    assert choice.name == chosen
    assert reason in choice.reason


def test_a_candidate_that_is_asked_for_ships_whatever_validation_says() -> None:
    fits = SMALL | {"era": _fitted(*[0.1] * 60)}
    assert choose(fits, "era") == ("era", "asked for with --candidate")
    with pytest.raises(InputError, match="No candidate 'best'; there are: small, era"):
        choose(fits, "best")


def test_several_collections_count_by_their_judges_up_to_thirty() -> None:
    # Gains of the first, 15 times: 0, 0.2, 0.4, 0.6, mean 0.3, variance 60 / 59 * 0.05, of the
    # mean 0.05 / 59. Of the second: 0.1 and 0.3, mean 0.2, variance 0.02, of the mean 0.01.
    # Weights 30/32 and 2/32: gain 0.294, standard error sqrt(900 * 0.05 / 59 + 4 * 0.01) / 32.
    small = _fitted(*_many(0.1), also=[0.4, 0.2])
    era = _fitted(*_many(0.1, 0.3, 0.5, 0.7), also=[0.5, 0.5])
    choice = choose({"small": small, "era": era})
    assert choice.name == "era"
    assert "+0.294, standard error 0.028, 62 queries" in choice.reason


def test_what_harms_a_collection_does_not_ship() -> None:
    small = _fitted(*[0.4] * 60, also=[0.4] * 60)
    era = _fitted(*[0.9] * 60, also=[0.3] * 60)  # the best mean, but the second collection loses
    dual = _fitted(*[0.6] * 60, also=[0.5] * 60)
    choice = choose({"small": small, "era": era, "era-dual": dual})
    assert choice.name == "era-dual"
    assert "harmful to a collection: era" in choice.reason


def test_a_large_collection_does_not_outvote_a_small_one() -> None:
    # Over queries the mean rises by 0.05; over collections it falls.
    small = _fitted(*[0.5] * 60, also=[0.9, 0.9])
    era = _fitted(*[0.6] * 60, also=[0.2, 0.2])
    assert np.concatenate(era.values).mean() > np.concatenate(small.values).mean()
    assert choose({"small": small, "era": era}).name == "small"


def test_a_collection_with_one_judging_query_is_never_enough() -> None:
    fits = {"small": _fitted(*[0.1] * 60, also=[0.1]), "era": _fitted(*[0.9] * 60, also=[0.9])}
    assert choose(fits).name == "small"


def test_of_few_judges_only_the_dual_view_is_tried_and_must_be_clearly_ahead() -> None:
    # era has the best mean, but of 4 judging queries that says little. Gains of era-dual: 0.1,
    # 0.1, 0.2, 0.2, mean 0.15, standard error 0.029; then -0.2, 0, 0.2, 0.2, mean 0.05.
    fits = {
        "small": _fitted(0.5, 0.5, 0.5, 0.5),
        "era": _fitted(0.9, 0.9, 0.9, 0.9),
        "era-dual": _fitted(0.6, 0.6, 0.7, 0.7),
    }
    assert choose(fits).name == "era-dual"
    weaker = {**fits, "era-dual": _fitted(0.3, 0.5, 0.7, 0.7)}
    choice = choose(weaker)
    assert choice.name == "small"
    assert "by 3.3 standard errors" in choice.reason
    many = {name: _fitted(*np.tile(fit.values[0], 15)) for name, fit in fits.items()}
    assert choose(many).name == "era"


@pytest.mark.parametrize(("number", "exact"), [(5, 2.869), (10, 2.320), (20, 2.140), (49, 2.052)])
def test_two_errors_of_few_are_more_by_students_t(number, exact) -> None:
    """Quantiles of Student's t at the 0.97725 that lie below two deviations of a normal one."""
    assert _Judges(number, "queries", few=True).clearly == pytest.approx(exact, abs=0.01)


def test_five_labels_against_what_needs_none_must_be_clearer_than_twenty() -> None:
    # A mean loss of 2.5 standard errors, whoever many there are.
    for number, chosen in ((5, "era-zero"), (20, "small")):
        losses = np.linspace(-1, 1, number)
        error = losses.std(ddof=1) / number**0.5
        losses = 0.05 * (losses / error - 2.5) / 2.5
        fits = {"small": _fitted(*[0.5] * number), "era-zero": _fitted(*(0.5 + losses))}
        assert choose(fits).name == chosen


ZERO = {"small": _fitted(*[0.5] * 60), "era-zero": _fitted(*[0.6] * 60)}


def test_what_needs_no_label_ships_unless_labels_prefer_another() -> None:
    assert choose(ZERO).name == "era-zero"
    worse = {**ZERO, "era-zero": _fitted(*[0.49] * 60)}
    assert choose(worse).name == "small"
    # Differences of 0.2 either way: a standard error of 0.026, and a mean of -0.02 or -0.05.
    for behind, chosen in ((0.02, "era-dual"), (0.05, "era-zero")):
        dual = _fitted(*_many(0.8 - behind, 0.4 - behind))
        assert choose({**ZERO, "era-dual": dual}).name == chosen


def test_few_labels_lean_on_what_needs_none() -> None:
    few = {"small": _fitted(0.5, 0.5, 0.5), "era-zero": _fitted(0.5, 0.6, 0.4)}
    assert choose(few).name == "era-zero"  # neither better nor worse, as far as they can tell
    assert choose({**few, "era-dual": _fitted(0.6, 0.7, 0.4)}).name == "era-zero"
    assert choose({**few, "era-dual": _fitted(0.8, 0.9, 0.7)}).name == "era-dual"
    # Losses of 0.1, 0, 0.2: more than one standard error of 0.058, less than two.
    assert choose({**few, "era-zero": _fitted(0.4, 0.5, 0.3)}).name == "era-zero"
    assert choose({**few, "era-zero": _fitted(0.3, 0.4, 0.35)}).name == "small"


SOUND = Signs(1000, 100, found=0.95, rank=1.1, agreement=0.5, own=0.99, same=False)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"found": 0.4}, "40% of the alignment documents"),
        ({"rank": 0.3}, "30% of the directions"),
        ({"own": 0.52, "agreement": 0.1}, "query rows are shuffled"),
        ({"agreement": 0.05}, "hardly agree on their neighbours"),
        ({"same": True}, "the same model"),
    ],
)
def test_a_sign_that_something_is_broken_comes_before_any_label(broken, named) -> None:
    fits = {**ZERO, "era-dual": _fitted(*[0.9] * 60)}
    assert choose(fits, signs=[SOUND]).name == "era-dual"
    choice = choose(fits, signs=[SOUND, SOUND._replace(**broken)])
    assert choice.name == "small"
    assert named in choice.reason
    assert choose(fits, "era-dual", signs=[SOUND._replace(**broken)]).name == "era-dual"


def test_too_few_documents_to_tell_need_many_labels() -> None:
    untold = SOUND._replace(found=None, rank=None, documents=12)
    fits = {**ZERO, "era-dual": _fitted(*[0.9] * 60)}
    assert choose(fits, signs=[SOUND, untold]).name == "era-dual"
    for count in (0, 49):
        few = {name: _fitted(*fit.values[0][:count]) for name, fit in fits.items()}
        choice = choose(few, signs=[SOUND, untold])
        assert choice.name == "small"
        assert "only 12 alignment documents" in choice.reason


def test_without_labels_the_choice_says_what_was_looked_at() -> None:
    fits = {name: _fitted() for name in ("small", "aligned", "era-zero")}
    choice = choose(fits, signs=[SOUND, SOUND._replace(queries=20, agreement=0.4)])
    assert choice.name == "era-zero"
    assert "without any label or measurement" in choice.reason
    assert "95% of held-out alignment documents" in choice.reason
    assert "120 queries (correlation 0.40)" in choice.reason
    unseen = choose(fits, signs=[SOUND._replace(queries=0, agreement=None, own=None)])
    assert unseen.name == "era-zero"
    assert "no query was there to look at" in unseen.reason
    assert choose(fits, signs=[SOUND._replace(own=0.5)]).name == "small"


def test_the_dual_view_ships_unless_another_is_better_by_a_standard_error() -> None:
    fits = {"small": _fitted(*[0.2] * 60), "era-dual": _fitted(*[0.6] * 60)}
    # Ahead by 0.01 on average; differences of 0.3 either way: a standard error of 0.038.
    lucky, better = _fitted(*[0.9, 0.32] * 30), _fitted(*[0.65] * 60)
    for other, chosen in ((lucky, "era-dual"), (better, "small+")):
        assert choose({**fits, "small+": other}).name == chosen


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32 - 1), many=st.booleans(), also=st.booleans(), lists=st.booleans())
def test_a_reason_says_no_word_and_no_number_that_the_values_do_not(
    seed, many, also, lists
) -> None:
    rng = np.random.default_rng(seed)
    count = 60 if many else 8
    base = rng.uniform(0.2, 0.8, (2, count))

    def drawn() -> Fitted:
        own = np.clip(base + rng.normal(rng.normal(0, 0.05), 0.15, base.shape), 0, 1)
        return _fitted(*own[0], also=own[1] if also else None)

    fits = {name: drawn() for name in ("small", "aligned", "era-zero", "era", "era-dual", "small+")}
    if lists:
        for name in FUSED:
            fit = drawn()
            joined = fit.adapter._replace(fusion=Fusion("bm25", float(rng.choice([0, 0.5]))))
            fits[fused_name("bm25", name)] = fit._replace(adapter=joined)
    choice = choose(fits)
    highest = max(fits, key=lambda name: fits[name].mean)
    mean = {name: f"{fit.mean:.3f}" for name, fit in fits.items()}
    if choice.name == highest:
        assert "highest held-out mean is that of" not in choice.reason
    else:
        assert f"the highest held-out mean is that of {highest}, {mean[highest]} " in choice.reason
    shown = re.findall(r"nDCG@10 (\S+) against (\S+) of (\S+) ", choice.reason)
    for ours, theirs, of in shown:
        assert theirs == mean[of]
        assert ours in mean.values()
    if choice.name not in ("small", *(f"bm25+{name}" for name in FUSED)):
        assert shown[0][0] == mean[choice.name]


def test_the_dual_view_is_not_called_the_best_where_another_has_the_highest_mean() -> None:
    fits = {
        "small": _fitted(*[0.2] * 60),
        "era": _fitted(*[0.9, 0.32] * 30),
        "era-dual": _fitted(*[0.6] * 60),
    }
    # Differences 0.3 and -0.28: mean 0.01, variance 60 / 59 * 0.29 ** 2, error 0.0378.
    assert choose(fits) == (
        "era-dual",
        "leans on both encoders, and within one standard error of era: held-out "
        "nDCG@10 0.600 against 0.200 of small (+0.400, standard error 0.000, 60 queries); the "
        "highest held-out mean is that of era, 0.610 (+0.010 over era-dual, standard error 0.038)",
    )

"""Fitting from arrays."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import NamedTuple

import numpy as np
import pytest
import torch
from planted import config_of, read_json

from era_cache.api import FirstStage, FitOptions, LabelsById, RetrievalAdapter, fit
from era_cache.errors import FingerprintError, FitError, FormatError, InputError
from era_cache.fitting.adapter_config import Parts
from era_cache.fitting.adapter_folder import check_fingerprints, load_adapter, load_config
from era_cache.fitting.config import FitConfig
from era_cache.types import Qrels

QUICK = FitConfig(
    strengths=(8.0,), iterations=3, folds=2, scales=(0.5,), reference_steps=((0.0, 1), (0.5, 1))
)
N_QUERIES, N_DOCS, D_LARGE, D_SMALL = 50, 90, 10, 8
TRAIN, TEST = slice(0, 30), slice(30, N_QUERIES)


class Problem(NamedTuple):
    """Queries i ask for document i; the large view sees it through a warp that labels must find."""

    large: np.ndarray
    small: np.ndarray
    corpus: np.ndarray
    align_large: np.ndarray
    relevant: np.ndarray

    def vectors(self):
        """All vectors that fitting is given, by name."""
        return {
            "query_vectors": self.large[TRAIN],
            "corpus_vectors": self.corpus,
            "small_queries": self.small[TRAIN],
            "align": {"large": self.align_large, "small": self.corpus},
        }

    def align(self, **sides):
        """What aligns the spaces, with other rows for one side."""
        return self.vectors()["align"] | sides

    def fit(self, qrels=None, *, config=QUICK, candidate="auto", progress=None, **changes):
        given = self.vectors() | changes
        large, corpus = given.pop("query_vectors"), given.pop("corpus_vectors")
        options = FitOptions(config, candidate, "cpu", progress)
        qrels = self.relevant[TRAIN] if qrels is None else qrels
        return fit(large, corpus, qrels, options=options, **given)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(3)
    corpus = rng.normal(size=(N_DOCS, D_SMALL))
    # Rows are not of unit length, and a rotation carries one space into the other.
    rotation = np.linalg.qr(rng.normal(size=(D_LARGE, D_LARGE)))[0][:D_SMALL]
    relevant = np.arange(N_QUERIES)
    mix = np.eye(D_SMALL) + 0.5 * rng.normal(size=(D_SMALL, D_SMALL))
    large = 3 * corpus[relevant] @ mix @ rotation + 0.2 * rng.normal(size=(N_QUERIES, D_LARGE))
    small = corpus[relevant] + 1.5 * rng.normal(size=(N_QUERIES, D_SMALL))
    return Problem(*(a.astype(np.float32) for a in (large, small, corpus, corpus @ rotation)),
                   relevant)  # fmt: skip


@pytest.fixture(scope="module")
def fitted(problem):
    return problem.fit()


def changed(**settings):
    return dataclasses.replace(QUICK, **settings)


def choosing(fitted, name):
    return dataclasses.replace(fitted, chosen=name)


def directions(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def weights(adapter):
    tables = [t for r in adapter.adapter.references for t in (r.keys, r.values)]
    return [adapter.adapter.weight, *tables]


def assert_same(one, two):
    assert (one.chosen, one.candidates) == (two.chosen, two.candidates)
    for name, adapter in one.adapters.items():
        assert torch.equal(adapter.weight, two.adapters[name].weight)
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


# What comes out


def test_fitting_beats_both_models_queries_on_queries_that_it_never_saw(problem, fitted) -> None:
    assert list(fitted.candidates) == ["small", "aligned", "era-zero", "era", "era-dual", "small+"]
    assert fitted.chosen in ("era-zero", "era-dual")  # of thirty judging queries no other is tried
    assert "held-out nDCG@10" in fitted.reason
    test = (problem.large[TEST], dict(enumerate(range(30, 50))), problem.corpus)
    small, aligned, era, dual, ours = (
        choosing(fitted, name).evaluate(*test, problem.small[TEST])["nDCG@10"]
        for name in ("small", "aligned", "era", "era-dual", fitted.chosen)
    )
    assert ours > small + 0.05
    assert dual > max(small, aligned) + 0.05
    assert era > max(small, aligned) + 0.3  # the dual view leans on small queries full of noise


def test_a_plain_rotation_is_found_without_any_training(problem) -> None:
    queries = problem.align_large[:30]
    found = problem.fit(query_vectors=queries, candidate="aligned")
    plain = found.adapter._replace(references=())
    mapped = dataclasses.replace(found, adapters={"aligned": plain}).transform(queries)
    assert np.allclose(mapped, directions(problem.corpus[:30]), atol=1e-5)


def test_transform_is_the_chosen_adapter_applied(problem, fitted) -> None:
    given = (problem.large[TEST], problem.small[TEST])
    vectors = fitted.transform(*given)
    views = {"large": torch.from_numpy(given[0]), "small": torch.from_numpy(given[1])}
    assert isinstance(vectors, np.ndarray)
    assert vectors.dtype == np.float32
    assert vectors.shape == (20, D_SMALL)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(vectors, fitted.adapter.apply(views).numpy())
    assert fitted.adapter is fitted.adapters[fitted.chosen]
    tensors = fitted.transform(*views.values())
    assert isinstance(tensors, torch.Tensor)
    assert np.array_equal(tensors.numpy(), vectors)
    assert fitted.transform(given[0][:0], given[1][:0]).shape == (0, D_SMALL)


def test_candidates_that_read_one_view_need_only_that(problem, fitted) -> None:
    small, era = choosing(fitted, "small"), choosing(fitted, "era")
    rows = problem.small[TEST]
    assert np.allclose(small.transform(None, rows), directions(rows), atol=1e-6)
    both = era.transform(problem.large[TEST], rows)
    assert np.array_equal(era.transform(problem.large[TEST]), both)
    with pytest.raises(InputError, match=r"small, reads the small model's queries; pass small_qu"):
        small.transform(problem.large[TEST])


def test_search_and_measures_are_those_worked_by_hand() -> None:
    corpus = np.array([[2.0, 0.0], [0.0, 5.0], [3.0, 3.0]])
    options = FitOptions(changed(reference_documents=0, memory_steps=()), "aligned", "cpu")
    queries = np.array([[1.0, 0.1], [0.1, 1.0]])
    eye = fit(queries, corpus, [0, 1], align={"large": corpus, "small": corpus}, options=options)
    queries = np.array([[9.0, 1.0], [1.0, 9.0], [5.0, 4.0]])
    ranking = eye.search(queries, corpus, 2)
    assert ranking.doc_rows.tolist() == [[0, 2], [1, 2], [2, 0]]
    assert ranking.scores[0, 0] == pytest.approx(9 / math.sqrt(82), abs=1e-6)
    # The first query finds its document at rank 2, the second at rank 1; the third has none.
    means = eye.evaluate(queries, [(0, 2), (1, 1), (2, 0, 0)], corpus, measures=["mrr", "nDCG@10"])
    assert means == {"RR": 0.75, "nDCG@10": pytest.approx((1 / math.log2(3) + 1) / 2)}


def test_documents_are_named_where_ids_were_given(problem) -> None:
    names = [f"doc {row}" for row in range(N_DOCS)]
    labels = LabelsById([[names[row]] for row in problem.relevant], None, names)
    adapter = fit(problem.large, problem.corpus, labels, small_queries=problem.small)
    found = adapter.search(problem.large, problem.corpus, 3, problem.small)
    assert found.ids == [[names[row] for row in rows] for rows in found.doc_rows.tolist()]
    fewer = adapter.search(problem.large, problem.corpus[:2], 3, problem.small)
    assert fewer.ids is None  # another corpus
    fewer = adapter.search(problem.large, problem.corpus[:2], 3, problem.small, doc_ids=["a", "b"])
    assert {len(ids) for ids in fewer.ids or []} == {2}
    with pytest.raises(InputError, match="2 doc_ids for"):
        adapter.search(problem.large, problem.corpus, 3, problem.small, doc_ids=["a", "b"])


def test_the_short_description_names_choice_and_means(fitted) -> None:
    text = repr(fitted)
    assert text.startswith(f"RetrievalAdapter({fitted.chosen}: ")
    assert "held-out nDCG@10: small 0." in text
    assert len(text) < 200


# The same whatever the form


def test_the_same_seed_gives_the_same_adapter_and_another_other_folds(problem, fitted) -> None:
    assert_same(fitted, problem.fit())
    other = problem.fit(config=changed(seed=5))
    assert other.config.seed == 5
    assert other.candidates != fitted.candidates


@pytest.mark.parametrize("kind", [np.float64, torch.float32, torch.float64, "strided"])
def test_numpy_and_torch_of_any_float_type_give_the_same(problem, fitted, kind) -> None:
    def turned(array):
        if isinstance(kind, torch.dtype):
            return torch.from_numpy(array).to(kind).requires_grad_()
        if kind == "strided":
            array = np.asfortranarray(array[::-1])[::-1]
            array.flags.writeable = False
            return array
        return array.astype(kind)

    vectors = problem.vectors()
    align = {side: turned(array) for side, array in vectors.pop("align").items()}
    vectors = {name: turned(array) for name, array in vectors.items()}
    assert_same(fitted, problem.fit(align=align, **vectors))


PAIRS = [(row, row) for row in range(30)]
FORMS = {
    "pairs": PAIRS,
    "triples in another order": [(q, d, 1) for q, d in reversed(PAIRS)],
    "a pair twice": PAIRS + PAIRS[:3],
    "array of pairs": np.array(PAIRS + PAIRS[:1]),
    "array of floats": np.array([(q, d, 1.0) for q, d in PAIRS + PAIRS[:1]]),
    "tensor": torch.tensor(PAIRS + PAIRS[:1]),
    "lists": [[d] for _, d in PAIRS],
    "arrays": [np.array([d]) for _, d in PAIRS],
    "dict of dicts": {q: {d: True} for q, d in PAIRS},
    "dict of sets": {q: {d} for q, d in PAIRS},
    "dict of numbers": {np.int64(q): d for q, d in PAIRS},
    "Qrels": Qrels(*(np.array([(*p, 1) for p in PAIRS]).T)),
}
IDS = {"query_ids": [f"q{row}" for row in range(30)], "doc_ids": [f"d{row}" for row in range(90)]}
NAMED = {
    "dict of ids": {f"q{q}": {f"d{d}": 1} for q, d in reversed(PAIRS)},
    "dict of lists of ids": {f"q{q}": [f"d{d}"] for q, d in PAIRS},
    "dict of single ids": {f"q{q}": f"d{d}" for q, d in PAIRS},
    "pairs of ids": [(f"q{q}", f"d{d}") for q, d in PAIRS],
    "rows, ids or not": PAIRS,
}


def by_id(labels):
    return LabelsById(labels, **IDS)


FORMS |= {name: by_id(form) for name, form in NAMED.items()}
# Where ids are given, whole numbers that are keys of a dict are ids.
NUMBERED = {100 + q: {N_DOCS - 1 - d: 1} for q, d in PAIRS}
FORMS["whole numbers as ids"] = LabelsById(NUMBERED, range(100, 130), range(N_DOCS)[::-1])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_labels_gives_the_same_adapter_bit_for_bit(problem, fitted, form) -> None:
    assert problem.relevant[TRAIN].tolist() == [d for _, d in PAIRS]
    assert_same(fitted, problem.fit(form))


@pytest.mark.parametrize("kind", [np.array, torch.tensor, lambda rows: by_id(np.array(rows))])
@pytest.mark.parametrize(("grade", "judgement"), [((), "document"), ((1,), "document, grade")])
def test_an_array_with_a_row_for_each_query_is_ambiguous(problem, kind, grade, judgement) -> None:
    """Both spellings that the message names give what each of the two meant."""
    rows = [(q, d, *grade) for q, d in PAIRS]
    with pytest.raises(InputError, match=rf"judgement \(query, {judgement}\) in each row, or"):
        problem.fit(kind(rows))
    array = np.array(rows)
    assert_same(problem.fit(PAIRS), problem.fit([tuple(row) for row in array.tolist()]))
    several = {q: set(map(int, row)) for q, row in enumerate(array)}
    assert_same(problem.fit(several), problem.fit(array.tolist()))


def test_grades_weigh_and_zero_is_no_positive(problem) -> None:
    def fitted(own, other):
        return problem.fit([row for q, d in PAIRS for row in ((q, d, own), (q, 80, other))])

    assert not torch.equal(fitted(2, 1).adapters["era"].weight, fitted(1, 1).adapters["era"].weight)
    assert_same(fitted(2, 0), problem.fit([(q, d, 2) for q, d in PAIRS]))


# Who trains and who judges


def test_validation_rows_never_train(problem) -> None:
    rows = np.arange(20, 30)
    config = changed(reference_steps=((0.5, 1),), memory_steps=(), reference_documents=20)
    options = {"candidate": "era", "config": config}
    one = problem.fit(validation=rows, **options)
    large, small = problem.large[TRAIN].copy(), problem.small[TRAIN].copy()
    large[20:] += 0.05
    small[20:] = small[20:][::-1]
    options |= {"query_vectors": large, "small_queries": small, "validation": rows.tolist()}
    two = problem.fit(PAIRS + [(row, 80) for row in rows], **options)
    assert one.result.candidates["era"].options == two.result.candidates["era"].options
    assert one.result.candidates["era"].options["strength"] == 8.0
    assert one.candidates["era"] != two.candidates["era"]
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))
    assert not one.config.refit
    large[:20] = large[:20][::-1]
    three = problem.fit(**options)
    assert not torch.equal(one.adapter.weight, three.adapter.weight)


def test_a_share_of_the_labelled_queries_judges_or_all(problem) -> None:
    found = problem.fit(PAIRS[:20], validation=0.25)
    assert [len(v) for v in found.result.candidates["small"].values] == [5]
    assert found.record.queries == Parts(train=25, validation=5)
    every = problem.fit(PAIRS[:12])
    assert [len(v) for v in every.result.candidates["small"].values] == [12]


def test_queries_equal_to_one_that_judges_do_not_train(problem) -> None:
    large = problem.large[TRAIN].copy()
    large[3] = large[25]
    found = problem.fit(query_vectors=large, validation=[25, 26])
    assert found.record.queries == Parts(train=27, validation=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.0}, r"validation=0\.0: a share lies between 0 and 1"),
        ({"validation": 1.5}, r"validation=1\.5: a share"),
        ({"validation": [3, 30]}, r"validation: query row 30 is out of range; rows are 0 to 29"),
        ({"validation": [-1]}, r"validation: query row -1 is out of range"),
        *(
            ({"validation": wrong}, "a share between 0 and 1, or a list of query rows")
            for wrong in ([], [True] * 30, "few", 1)
        ),
        ({"config": changed(refit=False)}, r"config\.refit is False, so that validation must say"),
        (
            {"config": changed(align_texts="both"), "small_queries": None},
            r"config\.align_texts='both' needs small_queries",
        ),
        ({"candidate": "best"}, "No candidate 'best'; there are: small, aligned"),
        *(
            ({"candidate": name, "small_queries": None}, "queries: small_queries")
            for name in ("small", "era-dual", "small+")
        ),
    ],
)
def test_wrong_options_are_refused(problem, options, message) -> None:
    with pytest.raises(InputError, match=message):
        problem.fit(**options)


def test_validation_leaves_someone_to_train_and_to_judge(problem) -> None:
    with pytest.raises(FitError, match=r"no query with a positive to train; 30 queries have one"):
        problem.fit(validation=range(30))
    with pytest.raises(FitError, match=r"no query with a positive to judge; 5 queries have one"):
        problem.fit(PAIRS[:5], validation=[7, 8])


# What may be missing


def test_without_small_queries_only_the_large_view_is_fitted(problem) -> None:
    found = problem.fit(small_queries=None)
    assert list(found.candidates) == ["aligned", "era"]
    assert found.chosen == "era"
    assert "of aligned" in found.reason
    assert "aligned is all that there is to compare with" in found.reason
    assert found.transform(problem.large[TEST]).shape == (20, D_SMALL)


def test_equal_dimensions_do_not_make_two_spaces_one(problem) -> None:
    square = {"query_vectors": problem.large[TRAIN, :D_SMALL], "small_queries": None}
    align = {"large": problem.align_large[:, :D_SMALL], "small": problem.corpus}
    found = problem.fit(align=align, **square)
    assert list(found.candidates) == ["aligned", "era"]
    with pytest.raises(FitError, match=r"Nothing to align .* Pass align=\{"):
        problem.fit(align=None, **square)


def test_queries_align_where_nothing_else_is_given(problem) -> None:
    found = problem.fit(align=None)
    assert found.config.align_texts == "queries"
    # A third is set aside to judge: queries that align cannot.
    assert found.record.queries == Parts(train=20, validation=10)
    assert found.config.refit is False
    assert (found.config.reference_documents, found.adapters["aligned"].references) == (0, ())
    apart = problem.fit(align=None, validation=np.arange(20, 30))
    large, small = (directions(a[:20].astype(np.float64)) for a in (problem.large, problem.small))
    u, _, vt = np.linalg.svd(small.T @ large, full_matrices=False)
    assert np.allclose(apart.adapters["aligned"].weight, u @ vt, atol=1e-4)


def test_a_candidate_may_be_asked_for(problem) -> None:
    told = []
    found = problem.fit(candidate="small+", progress=told.append)
    assert {"aligned", "era", "era-dual", "small+"} <= set(told)
    assert (found.chosen, found.reason) == ("small+", "asked for by candidate='small+'")


# Vectors that cannot be used


VECTORS = ["query_vectors", "corpus_vectors", "small_queries", 'align["large"]', 'align["small"]']


@pytest.mark.parametrize("name", VECTORS)
def test_wrong_vectors_are_named_with_their_first_bad_row(problem, name) -> None:
    given, _, side = name.rstrip('"]').partition('["')
    rows = problem.vectors()[given]
    rows = rows[side] if side else rows

    def at(row, value):
        changed = rows.astype(np.float64)
        changed[row] = value
        return changed

    two = at(slice(4, 6), np.nan)
    for wrong, message in (
        (two, r": row 4 holds NaN, infinity or numbers too large for float32 \(2 such rows\)"),
        (at((7, 1), -np.inf), ": row 7 holds NaN, infinity"),
        (at((7, 1), 1e300), ": row 7 holds NaN, infinity"),
        (at(2, 0.0), ": row 2 is zero, which has no direction"),
        (rows[0], r" has the shape \(\d+,\); \(rows, dimensions\) is expected"),
        (rows[:, :0], r" has the shape \(\d+, 0\)"),
        (rows[:0], " has no row"),
        (rows.astype(np.int8), " holds int8; floating-point vectors are expected"),
        (torch.ones(4, 3, dtype=torch.int64), r" holds torch\.int64; floating-point"),
        ([["a", "b"]], " holds <U1; floating-point"),
        ([[1.0], [1.0, 2.0]], " is no matrix"),
        (rows[:1] * np.arange(1, len(rows) + 1)[:, None], r": all \d+ rows point the same way"),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(name)}{message}"):
            problem.fit(**{given: problem.align(**{side: wrong}) if side else wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p: {"small_queries": p.small[:29]}, "small_queries has 29 rows, but query_vectors"),
        (lambda p: {"small_queries": p.large[TRAIN]}, "small_queries has 10 dimensions; 8 are exp"),
        (
            lambda p: {"align": p.align(large=p.align_large[:5])},
            r'align\["large"\] has 5 rows, but align\["small"\]',
        ),
        (
            lambda p: {"align": p.align(large=p.corpus)},
            r'align\["large"\] has 8 dimensions; 10 .* query_vectors',
        ),
        (
            lambda p: {"align": p.align(small=p.align_large)},
            r'align\["small"\] has 10 dimensions; 8 .* corpus_v',
        ),
        (
            lambda p: {"align": p.align(small=None)},
            r'align\["small"\] is missing: alignment needs the same texts',
        ),
        (lambda p: {"align": {"small": p.corpus}}, r'align\["large"\] is missing'),
        (lambda p: {"align": p.align(smal=p.corpus)}, "align: expected .* given is .*'smal'"),
        (lambda p: {"align": (p.align_large, p.corpus)}, "align: expected .* given is tuple"),
        (lambda _: {"qrels": LabelsById(PAIRS, ["q"] * 30)}, "query_ids has 30 ids, 1 of them dis"),
        (lambda _: {"qrels": LabelsById(PAIRS, None, ["a", "b"])}, "doc_ids has 2 ids, 2 of them"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(problem, wrong, message) -> None:
    with pytest.raises(InputError, match=message):
        problem.fit(**wrong(problem))


def test_transform_refuses_what_it_cannot_map(problem, fitted) -> None:
    dual = choosing(fitted, "era-dual")
    large, small = problem.large[TEST], problem.small[TEST]
    broken = large.copy()
    broken[6, 0] = np.nan
    for given, message in (
        ((large, small[1:]), "large_queries has 20 rows, but small_queries has 19"),
        ((small, small), "large_queries has 8 dimensions; 10 are expected, as of"),
        ((broken, small), "large_queries: row 6 holds NaN"),
    ):
        with pytest.raises(InputError, match=message):
            dual.transform(*given)
    with pytest.raises(InputError, match="corpus_vectors has 10 dimensions; 8 are expected"):
        dual.search(large, problem.align_large, 3, small)


# Labels that cannot be used


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ({0: {90: 1}}, "document row 90 is out of range; rows are 0 to 89"),
        ({30: {0: 1}}, "query row 30 is out of range; rows are 0 to 29"),
        ([(0, -1)], "document row -1 is out of range"),
        ([(-1, 0)], "query row -1 is out of range"),
        ([(0, 1.5)], r"document 1\.5 is no row number"),
        ([(0, None)], "document None is no row number"),
        (np.array([[0.0, np.nan]]), "document nan is no row number"),
        ([(0, 1, 0.5)], r"grade 0\.5 of query 0 and document 1 is no whole number"),
        ({0: {1: None}}, "grade None of query 0 and document 1 is no whole number"),
        ({0: {1: "2"}}, "grade '2' of query 0 and document 1 is no whole number"),
        ([(0, 1, 1 << 40)], "grade 1099511627776 of query 0"),
        ([(0, 1, 1), (0, 1, 2)], "query 0 and document 1 are judged twice, as 1 and 2"),
        ([(0, 1, 0), (2, 3, -1)], r"no judgement is positive \(grade 1 or above\)"),
        ([], "no judgement is positive"),
        ([[]] * 30, "no judgement is positive"),
        ({"q0": {1: 1}}, "query 'q0' is an id; pass LabelsById with query_ids"),
        ([(0, "d1")], "document 'd1' is an id; pass LabelsById with doc_ids"),
        ([(0, 1, 1, 1)], r"\(0, 1, 1, 1\) is no judgement; \(query, document\) or"),
        ([[1], [2]], "a list of 2 entries, 0 of them tuples, for 30 queries"),
        ([(0, 1), [1, 2]], "a list of 2 entries, 1 of them tuples"),
        (np.zeros((1, 5), dtype=np.int64), r"\(0, 0, 0, 0, 0\) is no judgement"),
        (7, "int is no form of labels"),
        ("q0", "str is no form of labels"),
        # Ids.
        (
            by_id({"q0": {"d1": 1, "x": 1}}),
            "document 'x' is not among doc_ids; 1 of 2 judgements n",
        ),
        (
            by_id({"x": {"d1": 1}, "q1": {"d1": 1}}),
            "query 'x' is not among query_ids; 1 of 2 judge",
        ),
        (
            by_id({"q0": {"x": 1}, "q1": {"y": 1}}),
            "document 'x' is not among doc_ids; nor is any o",
        ),
        (by_id({0: {"d1": 1}}), "query 0 is not among query_ids"),
        (by_id({"q0": {"d1": 1, "d2": None}}), "grade None of query 'q0' and document 'd2'"),
    ],
)
def test_wrong_labels_are_refused(problem, qrels, message) -> None:
    with pytest.raises(InputError, match=f"^qrels: {message}"):
        problem.fit(qrels)


def test_labels_that_teach_nothing_are_refused(problem) -> None:
    every = list(range(N_DOCS))
    with pytest.raises(FitError, match="Every document is relevant to each labelled query"):
        problem.fit({0: every, 1: every})
    with pytest.raises(FitError, match="A single labelled query cannot both train and judge"):
        problem.fit([(0, 1)])
    assert problem.fit([*PAIRS, *((0, doc) for doc in every)]).chosen != "small"


# Files


def test_a_saved_adapter_comes_back_whole(problem, fitted, tmp_path) -> None:
    fitted.save(tmp_path / "adapter")
    back = RetrievalAdapter.load(str(tmp_path / "adapter"))
    assert_same(fitted, back)
    assert (back.reason, back.result, back.config) == (fitted.reason, None, None)
    given = (problem.large[TEST], problem.small[TEST])
    assert np.array_equal(back.transform(*given), fitted.transform(*given))
    assert torch.equal(load_adapter(tmp_path / "adapter", "era").weight,
                       fitted.adapters["era"].weight)  # fmt: skip
    back.save(tmp_path / "again")
    for name in ("config.json", "metrics.json", "README.md", "adapter.safetensors"):
        one, two = (tmp_path / folder / name for folder in ("adapter", "again"))
        assert one.read_bytes() == two.read_bytes()


def test_a_folder_from_arrays_is_taken_for_no_encoders(fitted, tmp_path) -> None:
    fitted.save(tmp_path)
    config = config_of(tmp_path)
    assert config["dimensions"] == {"large": D_LARGE, "small": D_SMALL}
    assert config["recipe"]["folds"] == QUICK.folds
    for side in ("query", "small_query", "document"):
        with pytest.raises(FingerprintError):
            check_fingerprints(tmp_path, load_config(tmp_path), {side: "0" * 64})


def test_a_folder_without_means_is_refused(fitted, tmp_path) -> None:
    fitted.save(tmp_path)
    metrics = read_json(tmp_path / "metrics.json")
    del metrics["candidates"]["era"]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), "utf-8")
    with pytest.raises(FormatError, match=r"metrics\.json: incomplete: era has no mean"):
        RetrievalAdapter.load(tmp_path)


# Without labels


def test_without_labels_the_dual_view_needs_none(problem, tmp_path) -> None:
    # Large queries that agree with the large documents, as those of a sound model do.
    large = problem.align_large[:50] + 0.3 * np.random.default_rng(5).normal(size=(50, D_LARGE))
    vectors = problem.vectors() | {"query_vectors": large[TRAIN].astype(np.float32)}
    large_queries, corpus = vectors.pop("query_vectors"), vectors.pop("corpus_vectors")
    found = fit(large_queries, corpus, options=FitOptions(QUICK, device="cpu"), **vectors)
    assert list(found.candidates) == ["small", "aligned", "era-zero"]
    assert found.chosen == "era-zero"
    assert "without any label" in found.reason
    assert all(math.isnan(mean) for mean in found.candidates.values())
    found.save(tmp_path / "a")
    again = RetrievalAdapter.load(tmp_path / "a")
    assert again.chosen == "era-zero"
    assert all(math.isnan(mean) for mean in again.candidates.values())
    ours = found.transform(large[TEST].astype(np.float32), problem.small[TEST])
    np.testing.assert_array_equal(
        again.transform(large[TEST].astype(np.float32), problem.small[TEST]), ours
    )
    assert ours.shape == (20, D_SMALL)


def test_without_labels_what_is_needed_is_asked_for(problem) -> None:
    vectors = problem.vectors()
    large, corpus = vectors.pop("query_vectors"), vectors.pop("corpus_vectors")
    with pytest.raises(FitError, match="the small model's queries are needed"):
        fit(large, corpus, **vectors | {"small_queries": None})
    with pytest.raises(FitError, match=r"Without qrels, pass align=\{"):
        fit(large, corpus, small_queries=vectors["small_queries"])
    with pytest.raises(InputError, match="validation needs qrels"):
        fit(large, corpus, validation=0.5, **vectors)
    with pytest.raises(FitError, match="'era' is trained with labels"):
        fit(large, corpus, options=FitOptions(QUICK, "era"), **vectors)


# Joined with another system


def lists_of(problem, *, good=0.8, depth=12, seed=0):
    """Lists with scores in which the relevant document comes first, mostly."""
    rng = np.random.default_rng(seed)
    n_docs = len(problem.corpus)
    docs = np.stack([rng.permutation(n_docs)[:depth] for _ in problem.relevant])
    for row, doc in enumerate(problem.relevant):
        if rng.random() < good:
            docs[row] = [doc, *[d for d in docs[row] if d != doc][: depth - 1]]
    scores = np.tile(np.linspace(9, 1, depth, dtype=np.float32), (len(docs), 1))
    return FirstStage("bm25", docs, scores, np.zeros(len(docs), dtype=np.float32))


def training(lists):
    return FirstStage(lists.name, *(column[TRAIN] for column in lists[1:]))


def test_a_first_stage_joins_and_is_needed_to_search(problem, tmp_path) -> None:
    lists = lists_of(problem)
    found = problem.fit(first_stage=training(lists), candidate="bm25+era")
    assert found.chosen == "bm25+era"
    assert found.adapter.fusion.weight > 0
    assert found.candidates["bm25+small"] > found.candidates["small"]
    found.save(tmp_path / "a")
    again = RetrievalAdapter.load(tmp_path / "a")
    assert again.adapter.fusion == found.adapter.fusion
    assert f"cosine + {found.adapter.fusion.weight:g} * bm25_score" in (
        tmp_path / "a" / "README.md"
    ).read_text("utf-8")
    views = (problem.large, problem.corpus, 5)
    ranking = again.search(*views, first_stage=lists)
    mapped = torch.from_numpy(again.transform(problem.large))
    cosines = (mapped @ torch.nn.functional.normalize(torch.from_numpy(problem.corpus)).T).numpy()
    joined = cosines.copy()
    np.put_along_axis(
        joined,
        lists.docs,
        np.take_along_axis(cosines, lists.docs, 1) + found.adapter.fusion.weight * lists.scores,
        1,
    )
    np.testing.assert_array_equal(ranking.doc_rows[:, 0], joined.argmax(axis=1))
    np.testing.assert_allclose(ranking.scores[:, 0], joined.max(axis=1), atol=1e-5)
    with pytest.raises(InputError, match=r"joined with bm25: pass its lists .*adapters\['era'\]"):
        again.search(*views)


def test_lists_that_do_not_fit_are_refused(problem) -> None:
    good = training(lists_of(problem))
    n = len(problem.corpus)
    for wrong, message in (
        (good._replace(docs=good.docs[:, :3]), "expected docs as whole numbers"),
        (good._replace(docs=good.docs.astype(np.float32)), "expected docs as whole numbers"),
        (good._replace(floor=good.floor[:3]), "lists for"),
        (good._replace(docs=good.docs + n), "but there are"),
        (good._replace(docs=np.zeros_like(good.docs)), "a document twice"),
        (good._replace(scores=good.scores * np.nan), "NaN or infinite"),
        (good._replace(name="../x"), "expected letters"),
    ):
        with pytest.raises(InputError, match=f"first_stage: .*{message}"):
            problem.fit(first_stage=wrong)

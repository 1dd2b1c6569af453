"""One candidate from folds to adapter: what trains, what judges, and what is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from planted import aligned, fit_data, labels_of, measured, normal, qrels_of, silenced

from era_cache.errors import FitError, InputError
from era_cache.fitting import choose_tables as tables_module
from era_cache.fitting import crossfit as crossfit_module
from era_cache.fitting import held_out as judging
from era_cache.fitting.adapter import Adapter, References, unit
from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted, Request, crossfit, crossfit_all
from era_cache.fitting.held_out import Part, values_of
from era_cache.fitting.losses import pull_of
from era_cache.fitting.means import luck, macro
from era_cache.fitting.mining import STRATEGIES
from era_cache.fitting.softmax_documents import barred_documents
from era_cache.fitting.stack import Member, Stack, Task
from era_cache.fitting.starts import document_references
from era_cache.fitting.tensors import FitData, QuerySet
from era_cache.fitting.who_judges import Fold
from era_cache.types import IntArray, Qrels

CONFIG = FitConfig(
    strengths=(4.0, 1.0),
    iterations=6,
    folds=3,
    reference_steps=((0.0, 1), (0.3, 1)),
    memory_steps=(),
)
PLAIN = dataclasses.replace(CONFIG, strengths=(1.0,))


@pytest.fixture(scope="module")
def data() -> FitData:
    return fit_data()


def _start(data: FitData) -> torch.Tensor:
    return aligned(data.align_large, data.align_small).weight


def _request(*collections: FitData, config: FitConfig = CONFIG, **changes: object) -> Request:
    """A candidate that reads the large view, without references."""
    parts = [Part(data, labels_of(data.train, data.validation, config)) for data in collections]
    return Request(parts, ("large",), _start(collections[0]), config)._replace(**changes)


def _answer() -> torch.Tensor:
    """The map that undoes the planted one."""
    return torch.linalg.pinv(normal(12, 16, seed=1)).T.contiguous()


def _one_fold(request: Request, train: IntArray, judge: IntArray) -> Request:
    """One fold, whose training rows are also all that the final adapter may see."""
    (part,) = request.parts
    labels = part.labels._replace(folds=(Fold(train, judge),), train_rows=train, judges=judge)
    return request._replace(parts=[part._replace(labels=labels)])


def _started(request: Request) -> np.ndarray:
    """Values of the untrained start for the judging queries."""
    (part,) = request.parts
    start = Adapter(request.views, request.start)
    return measured(start, part.labels.queries, part.data, part.labels.judges)


def _relabelled(data: FitData, rows: IntArray) -> FitData:
    """Other positives for some of the labelled queries (training queries come first)."""
    split = len(data.train.ids)

    def changed(queries, own):
        docs = queries.qrels.doc_rows.copy()
        docs[own] = (docs[own] + 50) % len(data.corpus)
        return queries._replace(qrels=queries.qrels._replace(doc_rows=docs))

    return data._replace(
        train=changed(data.train, rows[rows < split]),
        validation=changed(data.validation, rows[rows >= split] - split),
    )


class _Spy:
    """Keeps the stacks that are made, what they begin with, and what is given to be judged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stacks: list[Stack] = []
        self.tasks: list[Task] = []
        self.members: list[list[Member]] = []
        self.judged: list[torch.Tensor] = []
        monkeypatch.setattr(crossfit_module, "Stack", self._stack)
        monkeypatch.setattr(judging, "values_of", self._values_of)

    def _stack(self, tasks, members, *args, **options) -> Stack:
        self.stacks.append(Stack(tasks, members, *args, **options))
        self.tasks.append(tasks[0])
        self.members.append(list(members))
        return self.stacks[-1]

    def _values_of(self, mapped, *args) -> np.ndarray:
        self.judged.append(mapped.clone())
        return values_of(mapped, *args)


@pytest.fixture
def spy(monkeypatch) -> _Spy:
    return _Spy(monkeypatch)


# What comes out


def test_training_beats_its_start_on_held_out_queries() -> None:
    request = _request(fit_data())
    fitted = crossfit(request)
    assert fitted.mean > _started(request).mean() + 0.15
    assert fitted.options == {"strength": 1.0}
    assert fitted.adapter.views == ("large",)
    assert fitted.adapter.references == ()
    # Queries that nobody has judged find their documents too.
    data = fit_data(n_docs=150, n_train=110, n_validation=40)
    before, after = (
        measured(adapter, data.validation, data).mean()
        for adapter in (Adapter(("large",), request.start), fitted.adapter)
    )
    assert after > before + 0.15


def test_values_of_by_hand(data) -> None:
    queries, rows = data.validation, np.arange(39, -1, -3)
    values = measured(Adapter(("small",), torch.eye(12)), queries, data, rows)
    scores = (queries.views["small"] @ data.corpus.T).numpy()
    for value, row in zip(values, rows, strict=True):
        (doc,) = queries.qrels.doc_rows[queries.qrels.query_rows == row]
        rank = int((scores[row] > scores[row, doc]).sum())
        assert value == pytest.approx(1 / np.log2(rank + 2) if rank < 10 else 0.0)
    assert values.max() > 0


def test_a_value_honours_the_excluded_document() -> None:
    data, asis = fit_data(exclude=True), Adapter(("small",), torch.eye(12))
    expected = measured(asis, data.validation, data)
    best = int(expected.argmax())
    exclude = data.validation.exclude.clone()
    exclude[best] = int(data.validation.qrels.doc_rows[best])
    expected[best] = 0
    barred = data.validation._replace(exclude=exclude)
    np.testing.assert_array_equal(measured(asis, barred, data), expected)


def test_the_mean_of_collections_counts_each_alike_unless_few_judge() -> None:
    many, more = np.array([0.0, 1.0] * 20), np.full(90, 1.0)
    assert macro([many, more]) == 0.75
    # 15 judging queries count for half of what 30 do.
    assert macro([many, np.full(15, 1.0)]) == pytest.approx((0.5 + 0.5) / 1.5)
    assert Fitted(None, (many, more), {}).mean == 0.75


def test_luck_is_what_the_others_would_not_have_chosen() -> None:
    # Two settings, four queries, each a fold. The second one's mean is higher (0.3 against 0.25),
    # for its first query alone: without that one the first setting is ahead, 1/3 against 0.
    plain, lucky = np.array([0.0, 0.0, 0.0, 1.0]), np.array([1.2, 0.0, 0.0, 0.0])
    (owed,) = luck([(plain,), (lucky,)], 1)
    # Query 0 is judged by the first setting, query 3 by the second: they owe 1.2 and nothing. The
    # other two by the second, whose value is that of the first.
    np.testing.assert_allclose(owed, [1.2, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(luck([(plain,), (plain,)], 0)[0], 0)
    np.testing.assert_array_equal(luck([(lucky[:1],), (plain[:1],)], 0)[0], 0)  # a single judge


def test_corrected_values_of_settings_that_differ_by_chance_only_gain_nothing() -> None:
    # Of thirty settings of noise the best looks well ahead; corrected it is where all are.
    generator = np.random.default_rng(0)
    raw, corrected = [], []
    for _ in range(100):
        settings = [(generator.normal(0.5, 0.3, 40),) for _ in range(30)]
        best = max(range(30), key=lambda i: settings[i][0].mean())
        raw.append(settings[best][0].mean())
        corrected.append((settings[best][0] - luck(settings, best)[0]).mean())
    assert np.mean(raw) > 0.58
    assert np.mean(corrected) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_held_out_values_never_fall_below_the_start(seed, monkeypatch) -> None:
    def nothing(settings, _chosen):  # what was chosen is looked at, not what luck takes off
        return tuple(np.zeros(len(values)) for values in settings[0])

    for module in (crossfit_module, tables_module):
        monkeypatch.setattr(module, "luck", nothing)
    for data in (fit_data(seed=seed, noise=3.0, n_train=6, n_validation=5), fit_data(seed=seed)):
        request = _request(data)
        assert crossfit(request).mean >= _started(request).mean()


def test_the_start_is_kept_where_training_does_not_help(data) -> None:
    # Labels that say nothing: no model that saw some of them does well on the others.
    shuffled = np.random.default_rng(0).permutation(40) + 100
    train = data.train._replace(qrels=data.train.qrels._replace(doc_rows=shuffled))
    request = _request(data._replace(train=train), config=PLAIN, start=_answer())
    fitted = crossfit(request)
    assert fitted.options["strength"] == "start"
    assert torch.equal(fitted.adapter.weight, request.start)
    np.testing.assert_array_equal(fitted.values[0], _started(request))


def test_a_strength_is_chosen_by_held_out_values(data) -> None:
    def fitted(*strengths: float) -> Fitted:
        config = dataclasses.replace(CONFIG, strengths=strengths)
        return crossfit(_request(data, config=config))

    assert fitted(1.0).mean > fitted(1e6).mean
    for strengths in ((1e6, 1.0), (1.0, 1e6)):
        assert fitted(*strengths).options["strength"] == 1.0


def test_every_point_of_a_path_that_is_kept_is_the_fit_that_ends_there(data) -> None:
    request = _request(data, config=dataclasses.replace(CONFIG, strengths=(100.0, 4.0, 1.0)))
    assert not crossfit(request).corrections.others
    fitted = crossfit(request._replace(keep_path=True))
    torch.testing.assert_close(fitted.adapter.weight, crossfit(request).adapter.weight)
    others = {one.strength: one for one in fitted.corrections.others}
    assert {*others, fitted.options["strength"]} == {"start", 100.0, 4.0, 1.0}
    torch.testing.assert_close(others["start"].adapter().weight, request.start)
    ended = crossfit(request._replace(config=dataclasses.replace(CONFIG, strengths=(100.0,))))
    assert ended.options["strength"] == 100.0
    torch.testing.assert_close(others[100.0].adapter().weight, ended.adapter.weight)
    torch.testing.assert_close(others[100.0].mapped[0], ended.corrections.mapped[0])
    assert others[100.0].adapter().references == ()


# Who trains and who judges


def test_each_value_comes_from_the_fold_model_that_never_saw_the_query(data) -> None:
    request = _request(data, config=PLAIN)
    fitted = crossfit(request)
    (part,) = request.parts
    assert len(part.labels.folds) == 3
    for fold in part.labels.folds:
        (model,) = crossfit_all([_one_fold(request, fold.train, fold.judge)], refit=False)
        assert model.options["strength"] == 1.0
        expected = measured(model.adapter, part.labels.queries, data, fold.judge)
        np.testing.assert_allclose(fitted.values[0][fold.judge], expected, atol=1e-6)
        np.testing.assert_allclose(model.values[0], expected, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_labels_of_the_queries_that_judge_do_not_reach_their_model(data, spy, number) -> None:
    fold = _request(data, config=PLAIN).parts[0].labels.folds[number]
    for given in (data, _relabelled(data, fold.judge)):
        crossfit(_request(given, config=PLAIN))
    one, two = spy.judged[1], spy.judged[len(spy.judged) // 2 + 1]  # the first of each is the start
    judging = torch.zeros(80, dtype=torch.bool)
    judging[torch.from_numpy(fold.judge)] = True
    torch.testing.assert_close(one[judging], two[judging], atol=1e-5, rtol=0)
    # The models of the other folds have seen them.
    different = ~torch.isclose(one, two, atol=1e-2).all(dim=1)
    assert bool(different[~judging].any())


def test_without_refit_no_label_of_a_validation_query_reaches_the_adapter(data) -> None:
    config = dataclasses.replace(PLAIN, refit=False)
    poisoned = _relabelled(data, np.arange(40, 60))
    one, two = (crossfit(_request(d, config=config)) for d in (data, poisoned))
    assert one.options["strength"] == two.options["strength"] == 1.0
    assert torch.equal(one.adapter.weight, two.adapter.weight)
    assert one.mean > two.mean
    assert len(one.values[0]) == 40


def test_the_final_training_takes_all_rows_and_the_chosen_strength(data, spy) -> None:
    request = _request(data)
    whole = crossfit(request)
    folds, final = ([m.rows[0].tolist() for m in members] for members in spy.members)
    assert folds == [fold.train.tolist() for fold in request.parts[0].labels.folds]
    assert final == [list(range(80))]
    # By hand: on from the mean of the fold models, which is what comes back without refit.
    (middle,) = crossfit_all([request], refit=False)
    begin = (middle.adapter.weight - request.start).view(1, -1)
    (parameters,) = spy.stacks[1].path([1.0], CONFIG.iterations, begin=begin)
    expected = request.start + parameters[0].view_as(request.start)
    torch.testing.assert_close(whole.adapter.weight, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(middle.adapter.weight, expected, atol=1e-3)
    np.testing.assert_array_equal(whole.values[0], middle.values[0])


# Documents of the softmax


def test_an_excluded_document_takes_no_part(data) -> None:
    moved = data.corpus.clone()
    moved[149] = data.train.views["small"][0]

    def weight(corpus: torch.Tensor, exclude: torch.Tensor | None) -> torch.Tensor:
        sides = {side: getattr(data, side) for side in ("train", "validation")}
        sides = {side: queries._replace(exclude=exclude) for side, queries in sides.items()}
        given = data._replace(corpus=corpus, **sides)
        return crossfit(_request(given, config=PLAIN)).adapter.weight

    barred = torch.full((40,), 149)
    assert torch.equal(weight(data.corpus, barred), weight(moved, barred))
    assert not torch.allclose(weight(data.corpus, None), weight(moved, None), atol=1e-4)


def _barred(config: FitConfig, data: FitData, spy: _Spy) -> torch.Tensor:
    crossfit(_request(data, config=config))
    barred = spy.tasks[-2].barred  # of the folds; the last are of the final training
    return torch.zeros(80, len(data.corpus), dtype=torch.bool) if barred is None else barred


def test_a_query_is_not_pushed_from_copies_of_its_positive(data, spy) -> None:
    corpus = data.corpus.clone()
    corpus[120] = corpus[5]
    corpus[121] = unit(corpus[5] + 0.03 * normal(12))  # cosine above 0.99, below 0.999
    corpus[122] = corpus[123]  # copies of each other, positives of nobody
    data = data._replace(corpus=corpus)
    assert 0.99 < float(corpus[5] @ corpus[121]) < 0.999
    for duplicates, copies in ((1.1, []), (PLAIN.duplicates, [120]), (0.99, [120, 121])):
        expected = torch.zeros(80, 150, dtype=torch.bool)
        expected[5, copies] = True
        config = dataclasses.replace(PLAIN, duplicates=duplicates)
        assert torch.equal(_barred(config, data, spy), expected)


def test_a_positive_is_never_barred(spy) -> None:
    # Query 0 has two positives that are copies, and must not find one of them.
    data = fit_data(exclude=True)
    corpus = data.corpus.clone()
    corpus[120] = corpus[0]
    qrels = Qrels(*(np.append(c, v) for c, v in zip(data.train.qrels, (0, 120, 1), strict=True)))
    exclude = data.train.exclude.clone()
    exclude[0] = 0
    train = data.train._replace(qrels=qrels, exclude=exclude)
    barred = _barred(PLAIN, data._replace(corpus=corpus, train=train), spy)
    assert not barred[0].any()
    for query in range(1, 80):
        assert barred[query].nonzero().flatten().tolist() == [(query + 3) % 150]


def test_in_batch_negatives_are_the_positives_of_all_queries(spy) -> None:
    data = fit_data(exclude=True)
    barred = _barred(dataclasses.replace(PLAIN, negatives="in-batch"), data, spy)
    for query in range(80):
        left = (~barred[query]).nonzero().flatten().tolist()
        assert left == [doc for doc in range(80) if doc != query + 3]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_mined_negatives_and_positives_are_all_that_is_left(spy, strategy) -> None:
    config = dataclasses.replace(PLAIN, negatives=strategy, negatives_per_query=7)
    barred = _barred(config, fit_data(exclude=True), spy)
    assert (~barred).sum(dim=1).tolist() == [8] * 80
    assert not barred[torch.arange(80), torch.arange(80)].any()
    assert bool(barred[torch.arange(80), torch.arange(3, 83)].all())


def test_strategies_choose_from_all_documents_not_from_the_hardest(spy) -> None:
    config = dataclasses.replace(POOLED, pool_documents=1, negatives="random")
    _barred(config, fit_data(n_docs=310), spy)
    assert spy.tasks[0].corpus.shape == (310, 12)


@pytest.mark.parametrize("negatives", ["in-batch", *STRATEGIES])
def test_every_choice_of_negatives_trains(data, negatives) -> None:
    # Query 0 has no positive: nothing is mined for it.
    data = data._replace(train=silenced(data.train, [0]))
    config = dataclasses.replace(CONFIG, negatives=negatives, folds=4)
    request = _request(data, config=config)
    fitted = crossfit(request)
    assert fitted.mean > _started(request).mean() + 0.1
    assert torch.isfinite(fitted.adapter.weight).all()


def test_unknown_negatives_are_refused() -> None:
    with pytest.raises(InputError, match="'best'; expected one of"):
        crossfit(_request(fit_data(), config=dataclasses.replace(PLAIN, negatives="best")))


# Pools


def _turned(data: FitData) -> FitData:
    """The same with documents in reverse order, so that positives are the last of a pool."""
    last = len(data.corpus) - 1

    def turned(queries: QuerySet) -> QuerySet:
        qrels = queries.qrels._replace(doc_rows=last - queries.qrels.doc_rows)
        return queries._replace(qrels=qrels, exclude=last - queries.exclude)

    parts = {"train": turned(data.train), "validation": turned(data.validation)}
    return data._replace(corpus=data.corpus.flip(0), **parts)


POOLED = dataclasses.replace(CONFIG, pool_documents=100, mined_per_query=3)


def test_a_pool_keeps_positives_and_what_they_pull_to(spy) -> None:
    data = _turned(fit_data(n_docs=310, exclude=True))
    fitted = crossfit(_request(data, config=POOLED))
    task = spy.tasks[0]
    assert task.corpus.shape == (80 + 100, 12)  # the judged ones and as many as are asked for
    queries = _request(data).parts[0].labels.queries
    assert torch.equal(task.pull, pull_of(queries.qrels, 80, data.corpus))
    rows = (task.corpus @ data.corpus.T).argmax(dim=1).tolist()  # pool row to corpus row
    assert rows == sorted(set(rows))
    assert set(range(230, 310)) <= set(rows)
    # What a query must not find is barred where the pool has it.
    for query, own in enumerate(queries.exclude.tolist()):
        barred = [rows[place] for place in task.barred[query].nonzero().flatten()]
        assert barred == ([own] if own in rows else [])
    assert fitted.mean > _started(_request(data, config=POOLED)).mean() + 0.1


def test_a_pool_is_mined_anew_between_strengths(spy) -> None:
    data = fit_data(n_docs=300)
    config = dataclasses.replace(POOLED, pool_documents=1, mined_per_query=1)
    crossfit(_request(data, config=config))
    start = unit(_request(data).parts[0].labels.queries.views["large"] @ _start(data).T)
    best = (start @ data.corpus.T).argmax(dim=1).unique()

    def held(corpus: torch.Tensor) -> float:
        """Share of the start's hardest documents that a pool has."""
        rows = (corpus @ data.corpus.T).argmax(dim=1)
        assert len(rows) == 80 + 80  # one for each query, at least
        return float(torch.isin(best, rows).float().mean())

    assert held(spy.tasks[0].corpus) == 1
    assert held(spy.stacks[0].tasks[0].corpus) < 1
    assert spy.stacks[1].tasks[0] is spy.stacks[0].tasks[0]  # and so trains the last one


def test_a_pool_is_a_share_of_a_large_corpus_at_least(spy) -> None:
    crossfit(_request(fit_data(n_docs=4000), config=POOLED))
    assert len(spy.tasks[0].corpus) == 80 + 300  # 7.5 % beside the judged ones


def test_fits_by_other_labels_have_pools_of_their_own(spy) -> None:
    data = fit_data(n_docs=310)
    every = _request(data, config=POOLED)
    part = every.parts[0]
    queries = part.labels.queries
    few, judges = np.arange(20), np.arange(20, 30)
    fewer = part.labels._replace(train_rows=few, judges=judges, folds=(Fold(few, judges),))
    crossfit_all([every, every._replace(parts=[part._replace(labels=fewer)]), every], refit=False)
    assert len(spy.stacks) == 2
    known = [set((s.tasks[0].corpus @ data.corpus.T).argmax(dim=1).tolist()) for s in spy.stacks]
    unseen = np.arange(30, len(queries.ids))
    positives = set(queries.qrels.doc_rows[np.isin(queries.qrels.query_rows, unseen)].tolist())
    assert positives <= known[0]
    assert not positives <= known[1]  # nobody told it of them


@pytest.mark.parametrize("documents", [300, 10_000])
def test_a_pool_of_all_documents_is_the_corpus(documents) -> None:
    data = fit_data(n_docs=300)
    usual = crossfit(_request(data))
    fitted = crossfit(_request(data, config=dataclasses.replace(CONFIG, pool_documents=documents)))
    assert torch.equal(usual.adapter.weight, fitted.adapter.weight)


# References and memory


def _found(data: FitData) -> References:
    """References whose keys and values agree with the planted problem: they lead to the answer."""
    warp = normal(12, 16, seed=1)
    keys = unit(data.corpus @ warp)
    return References("large", keys, data.corpus, 0.05, 0.1)


def test_the_step_of_the_references_is_chosen_by_held_out_values(data) -> None:
    useless = _found(data)._replace(keys=unit(normal(150, 16, seed=99)))
    config = dataclasses.replace(CONFIG, strengths=(1e5,))
    for start, table, step in ((_start(data), _found(data), 0.3), (_answer(), useless, 0.0)):
        fitted = crossfit(_request(data, config=config, start=start, references=table))
        assert fitted.options["references"] == f"{step:g} x 1"
        assert [t.step for t in fitted.adapter.references] == ([step] if step else [])


def test_document_references_are_the_first_alignment_documents_of_each_collection() -> None:
    one, two = fit_data(), fit_data(seed=7)
    config = FitConfig(reference_documents=20, default_reference_step=(0.7, 3))
    parts = _request(one, two).parts
    table = document_references(parts, config)
    assert torch.equal(table.keys, torch.cat([one.align_large[:20], two.align_large[:20]]))
    assert torch.equal(table.values, torch.cat([one.align_small[:20], two.align_small[:20]]))
    assert (table.view, table.step, table.steps, table.contrast) == ("large", 0.7, 3, True)
    assert document_references(parts, FitConfig(reference_documents=0)) is None


def _twins() -> FitData:
    """Only the memory can help: a query's view says nothing but which earlier query it is like."""
    data = fit_data(n_train=30, n_validation=30)
    large = unit(normal(30, 16, seed=42))
    near = unit(large + 0.02 * normal(30, 16, seed=43))
    train, validation = (
        data.train._replace(views={"large": rows, "small": rows[:, :12]}) for rows in (large, near)
    )
    return data._replace(train=train, validation=validation)


MEMORY = dataclasses.replace(CONFIG, refit=False, memory_steps=(5.0,), strengths=(1e5,))


@pytest.mark.parametrize(
    ("views", "d_in"), [(("large",), 16), (("small",), 12), (("small", "large"), 28)]
)
@pytest.mark.parametrize("referring", [True, False])
def test_a_memory_of_labelled_queries_joins_where_it_helps(views, d_in, referring) -> None:
    data = _twins()
    table = _found(data) if referring and "large" in views else None
    request = _request(data, config=MEMORY, views=views, start=normal(12, d_in), references=table)
    fitted = crossfit(request)
    plain = crossfit(request._replace(config=dataclasses.replace(MEMORY, memory_steps=())))
    assert fitted.mean > plain.mean + 0.3
    memory = fitted.adapter.references[-1]
    assert memory.view == ("large" if "large" in views else "small")
    assert torch.equal(memory.keys, data.train.views[memory.view])
    torch.testing.assert_close(memory.values, data.corpus[:30])
    assert fitted.options["memory"] in ("5", "5 plain")
    # What is reported is what the adapter does.
    values = measured(fitted.adapter, data.validation, data)
    np.testing.assert_allclose(fitted.values[0], values, atol=1e-6)


def test_a_judging_query_is_not_in_the_memory_that_corrects_it() -> None:
    # A query that found itself there would have its own positive as the nearest value.
    data = fit_data(noise=30.0)
    config = dataclasses.replace(CONFIG, memory_steps=(5.0,), strengths=(1e5,))
    fitted = crossfit(_request(data, config=config))
    assert fitted.mean < 0.3
    memory = References("large", data.train.views["large"], data.corpus[:40], 0.05, 5.0)
    known = measured(fitted.adapter._replace(references=(memory,)), data.train, data)
    assert known.mean() > 0.9


def test_a_memory_that_does_not_help_is_left_out() -> None:
    # The start is right already, and no two queries share a document.
    fitted = crossfit(_request(fit_data(), config=MEMORY, start=_answer()))
    assert fitted.mean > 0.9
    assert "memory" not in fitted.options
    assert fitted.adapter.references == ()


def test_without_steps_to_choose_from_the_references_keep_theirs(data) -> None:
    config = dataclasses.replace(MEMORY, reference_steps=())
    table = _found(data)
    fitted = crossfit(_request(data, config=config, start=_answer(), references=table))
    assert fitted.options == {"strength": "start", "references": "0.1 x 1"}
    (kept,) = fitted.adapter.references
    assert kept == table


# Shapes, collections, requests


@pytest.mark.parametrize(("shape", "gain"), [("low-rank", 0.1), ("mlp", 0.02)])
def test_other_shapes_train(shape, gain) -> None:
    config = dataclasses.replace(CONFIG, shape=shape, rank=4, hidden=24, strengths=(0.3, 0.03))
    request = _request(fit_data(), config=config)
    fitted = crossfit(request)
    assert fitted.mean > _started(request).mean() + gain
    departure = (fitted.adapter.weight - request.start).double()
    assert int(torch.linalg.matrix_rank(departure, rtol=1e-4)) == (4 if shape == "low-rank" else 0)
    assert (fitted.adapter.hidden is not None) == (shape == "mlp")


def test_a_learned_temperature_is_reported(data) -> None:
    config = dataclasses.replace(PLAIN, learn_temperature=True, temperature=0.5)
    fitted = crossfit(_request(data, config=config))
    assert 0 < fitted.options["temperature"] < 0.5
    assert "temperature" not in crossfit(_request(data, config=PLAIN)).options


def test_one_adapter_serves_several_collections() -> None:
    whole = fit_data()
    first = whole._replace(validation=fit_data(n_train=40, n_validation=4).validation)
    second = whole._replace(train=whole.validation, validation=fit_data(n_train=80).validation)
    request = _request(first, second)
    fitted = crossfit(request)
    assert [len(v) for v in fitted.values] == [44, 80]
    assert fitted.mean == pytest.approx((fitted.values[0].mean() + fitted.values[1].mean()) / 2)
    for data, values in zip((first, second), fitted.values, strict=True):
        assert values.mean() > _started(_request(data)).mean() + 0.1


def test_collections_of_fewer_folds_are_judged_by_models_that_never_saw_them(spy) -> None:
    config = dataclasses.replace(PLAIN, folds=4)
    few, many = fit_data(n_train=1, n_validation=2), fit_data(seed=5)
    request = _request(few, many, config=config)
    assert [len(part.labels.folds) for part in request.parts] == [3, 4]
    fitted = crossfit(request)
    assert [len(v) for v in fitted.values] == [3, 80]
    members = spy.members[0]
    assert len(members) == 4
    for number, part in enumerate(request.parts):
        for fold, member in zip(part.labels.folds, members, strict=False):
            assert member.rows[number].tolist() == fold.train.tolist()
    # Recomputed from the members' own training, fold by fold.
    at_strength = spy.judged[2:4]  # two collections at the start, then after training
    (parameters,) = spy.stacks[0].path([1.0], config.iterations)
    for number, part in enumerate(request.parts):
        large = part.labels.queries.views["large"]
        for member, fold in enumerate(part.labels.folds):
            expected = spy.stacks[0].outputs(parameters[member], member, large[fold.judge])
            torch.testing.assert_close(at_strength[number][fold.judge], expected)


def test_fitting_is_deterministic_and_depends_on_its_seed(data) -> None:
    one = crossfit(_request(data))
    torch.manual_seed(5)  # the global generator takes no part
    again = crossfit(_request(data))
    assert torch.equal(one.adapter.weight, again.adapter.weight)
    np.testing.assert_array_equal(one.values[0], again.values[0])
    other = crossfit(_request(data, config=dataclasses.replace(CONFIG, seed=1)))
    assert not torch.equal(one.adapter.weight, other.adapter.weight)


def _same(one: Fitted, two: Fitted) -> None:
    assert one.options == two.options
    torch.testing.assert_close(one.adapter.weight, two.adapter.weight, atol=1e-4, rtol=0)
    assert len(one.adapter.references) == len(two.adapter.references)
    for mine, theirs in zip(one.values, two.values, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("stack_bytes", [1, 1 << 30])
@pytest.mark.parametrize(
    "config", [CONFIG, POOLED, dataclasses.replace(CONFIG, negatives="naive_topk")]
)
def test_requests_fitted_together_equal_requests_fitted_alone(config, stack_bytes) -> None:
    data = fit_data(n_docs=160)
    config = dataclasses.replace(config, stack_bytes=stack_bytes)
    first = _request(data, config=config)
    both = torch.cat([torch.eye(12), 0.5 * first.start], dim=1)
    warmer = dataclasses.replace(config, temperature=0.1)
    remembering = dataclasses.replace(config, memory_steps=(0.4,))
    requests = [
        first,
        first._replace(start=0.5 * first.start),
        first._replace(views=("small", "large"), start=both),
        first._replace(config=warmer),
        first._replace(config=remembering, references=_found(data)),
    ]
    for request, together in zip(requests, crossfit_all(requests), strict=True):
        _same(together, crossfit(request))


def test_requests_with_other_folds_of_the_same_queries_are_fitted_together(spy) -> None:
    first = _request(fit_data(), config=PLAIN)
    second = _one_fold(first, np.arange(30), np.arange(30, 80))
    for one, two in zip(crossfit_all([first, second]), (first, second), strict=True):
        _same(one, crossfit(two))
    assert len(spy.members[0]) == 4


def test_progress_is_told_for_each_strength() -> None:
    told: list[str] = []
    crossfit(_request(fit_data()), tell=told.append)
    assert [text.split(":")[0] for text in told] == ["strength 4", "strength 1"]


def test_labels_without_a_positive_are_refused() -> None:
    empty = np.empty(0, dtype=np.int64)
    with pytest.raises(FitError, match="nothing to learn"):
        crossfit(_one_fold(_request(fit_data()), empty, np.arange(5)))


def test_a_document_judged_not_relevant_is_a_negative_under_every_strategy() -> None:
    corpus = unit(normal(30, 6))
    config = FitConfig(negatives="naive_topk", negatives_per_query=2, duplicates=2.0)
    barred = barred_documents(corpus[:1], qrels_of((0, 3, 1), (0, 7, 0)), None, corpus, config)
    assert barred is not None
    allowed = (~barred[0]).nonzero().squeeze(1).tolist()
    assert {3, 7} <= set(allowed)
    assert len(allowed) == 4

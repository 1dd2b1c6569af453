"""Where training starts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from planted import QUICK, aligned, fit_data, measured

from era_cache.errors import InputError
from era_cache.fitting.adapter import Adapter
from era_cache.fitting.alignment.methods import ALIGNMENTS
from era_cache.fitting.config import FitConfig
from era_cache.fitting.held_out import Part
from era_cache.fitting.label_free import joined_start, spread
from era_cache.fitting.recipes import fit_candidates, parts_of
from era_cache.fitting.starts import align, document_references
from era_cache.fitting.tensors import FitData


@pytest.fixture(scope="module")
def data() -> FitData:
    return fit_data()


def _held_out(adapter: Adapter, part: Part) -> float:
    """Mean value of an adapter for a collection's judging queries."""
    return float(measured(adapter, part.labels.queries, part.data, part.labels.judges).mean())


def test_joined_start_adds_the_scaled_aligned_view_and_spreads_both(data) -> None:
    weight = aligned(data.align_large, data.align_small).weight
    views = data.validation.views
    wide = spread([data.corpus], FitConfig())
    expected = (views["small"] + 0.5 * (views["large"] @ weight.T)) @ wide
    mapped = Adapter(("small", "large"), joined_start(weight, 0.5, wide)).apply(views)
    torch.testing.assert_close(mapped, torch.nn.functional.normalize(expected, dim=1))


def test_spreading_lengthens_the_directions_that_documents_use_little() -> None:
    # Three documents along the first axis to one along the second: moments 0.75 and 0.25. With no
    # share given to all alike, a power of -1/2 makes 1.155 and 2, scaled to a mean of 1.
    corpus = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    config = FitConfig(spread=0.5, spread_shrink=1e-6)
    expected = torch.tensor([0.75**-0.5, 0.25**-0.5])
    found = spread([corpus], config)
    torch.testing.assert_close(found, torch.diag(expected / expected.mean()), atol=1e-4, rtol=0)
    same = spread([corpus], dataclasses.replace(config, spread=0.0))
    torch.testing.assert_close(same, torch.eye(2))


def test_collections_count_alike_however_many_documents_they_have() -> None:
    one, two = torch.eye(2)[:1], torch.eye(2)[1:]
    torch.testing.assert_close(spread([one.repeat(9, 1), two], FitConfig()), torch.eye(2))


def test_spaces_are_aligned_on_the_texts_asked_for(data) -> None:
    documents = data.align_large, data.align_small
    queries = data.train.views["large"], data.train.views["small"]
    both = [torch.cat(pair) for pair in zip(documents, queries, strict=True)]
    for texts, pair in (("documents", documents), ("queries", queries), ("both", both)):
        config = FitConfig(align_texts=texts)
        found, method = align(parts_of(data, config), config)
        assert method == "procrustes"
        torch.testing.assert_close(found.weight, aligned(*pair).weight)


def test_unknown_alignment_texts_are_refused(data) -> None:
    with pytest.raises(InputError, match="'titles'; expected one of documents, queries, both"):
        align(parts_of(data, FitConfig()), FitConfig(align_texts="titles"))


def test_the_alignment_of_several_collections_takes_the_texts_of_all() -> None:
    one, two = fit_data(), fit_data(seed=5)
    found, _ = align(parts_of([one, two], FitConfig()), FitConfig())
    expected = aligned(
        torch.cat([one.align_large, two.align_large]), torch.cat([one.align_small, two.align_small])
    )
    torch.testing.assert_close(found.weight, expected.weight)


def test_auto_takes_the_alignment_that_ranks_best_for_labelled_queries(data) -> None:
    config = FitConfig(align="auto")
    (part,) = parts_of(data, config)
    tables = (document_references([part], config),)
    means = {}
    for name in ALIGNMENTS:
        found, method = align([part], dataclasses.replace(config, align=name))
        assert method == name
        means[name] = _held_out(found._replace(references=tables), part)
    best, method = align([part], config)
    assert len(set(means.values())) > 1
    assert means[method] == max(means.values())
    assert _held_out(best._replace(references=tables), part) == means[method]


def test_the_scale_of_the_dual_view_is_the_one_whose_start_ranks_best(data) -> None:
    config = dataclasses.replace(QUICK, scales=(0.0, 0.5, 3.0), strengths=(1e6,))
    (part,) = parts_of(data, config)
    weight = aligned(data.align_large, data.align_small).weight
    tables = (document_references([part], config),)
    means = {}
    for scale in config.scales:
        joined = joined_start(weight, scale, spread([data.corpus], config))
        start = Adapter(("small", "large"), joined, references=tables)
        means[scale] = _held_out(start, part)
    found = fit_candidates(data, config).candidates["era-dual"].options["scale"]
    assert means[found] == max(means.values()) > min(means.values())

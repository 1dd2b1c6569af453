"""An adapter for collections without labels, where others have some.

In: collections with labels, and documents of those that the adapter is for. Out: the candidates
that no label has a part in, made of these documents, and which candidate ships.

What labels of one collection teach is not what another one asks for. On thirteen development
collections, each with its domain left out, ``era-dual`` was worse there than ``era-zero`` on every
one, by 1 to 7 points of nDCG@10, although held-out queries of the collections that it was trained
on put it 10 above ``small`` (docs/fitting.md). So each collection is judged by models that saw none
of its labels (``labels_together``), and counts as one observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from era_cache.fitting.candidates import TRAINED, unfused_name
from era_cache.fitting.choice import Choice, choose
from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import Part
from era_cache.fitting.signs import Signs
from era_cache.fitting.starts import begin_of, free_adapters, untrained
from era_cache.fitting.tensors import Documents

__all__ = ["choose_elsewhere", "free_elsewhere"]


def free_elsewhere(
    parts: Sequence[Part], config: FitConfig, documents: Sequence[Documents], names: Sequence[str]
) -> dict[str, Fitted]:
    """The candidates that no label has a part in, for other collections.

    They are made of the other collections' documents alone. Each labelled collection judges those
    that are made in the same way for itself: of its own documents; or, where there are none of the
    others, of all labelled collections but itself.

    Args:
        parts: the labelled collections.
        config: the recipe.
        documents: of the others; none if there are none.
        names: of the candidates.
    """
    theirs = [] if documents and config.align_texts != "queries" else parts
    begin = begin_of(theirs, config, documents)
    measured = []
    for part in parts:
        others = [other for other in parts if other is not part]
        own = begin_of([part] if documents or not others else others, config)
        adapters = free_adapters(own, config)
        measured.append({name: untrained(adapters[name], [part]) for name in names})
    found = {}
    for name in names:
        ones = [one[name] for one in measured]
        values = tuple(one.values[0] for one in ones)
        mapped = tuple(one.mapped[0] for one in ones)
        found[name] = Fitted(free_adapters(begin, config)[name], values, {}, mapped, values)
    return found


def choose_elsewhere(
    fits: Mapping[str, Fitted], candidate: str, signs: Sequence[Signs], *, documents: bool
) -> Choice:
    """Choose what ships for other collections; see ``choose``, each collection being one value.

    Args:
        fits: all candidates; values of the labelled collections.
        candidate: ``auto``, or a name that is chosen without comparison.
        signs: of the labelled collections.
        documents: whether documents of the other collections are there. Without them no trained
            candidate ships, for each had the documents of those that judge it. Nor does any other
            where a single collection judges, whose own documents it was made of; with documents,
            that collection's labels are as good as none.

    Raises:
        InputError: there is no such candidate.
    """
    if candidate != "auto" or "small" not in fits:
        return choose(fits, candidate, signs)
    judged = [number for number, values in enumerate(fits["small"].values) if len(values)]
    if not documents:
        fits = {name: fit for name, fit in fits.items() if unfused_name(name) not in TRAINED}
        if len(judged) < 2:
            why = "nothing is known of the collections that it is for, not even documents"
            return Choice("small", f"no adapter can be trusted: {why}")
    observed = judged if len(judged) > 1 else []
    means = {
        name: fit._replace(values=(np.array([fit.values[n].mean() for n in observed]),))
        for name, fit in fits.items()
    }
    return choose(means, candidate, signs, elsewhere=True)

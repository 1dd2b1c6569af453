"""Where training starts, and what an untrained map is worth.

In: collections with their judges. Out: the label-free map of the large view with what goes with it,
the weight that the dual view gives it, and the values of any untrained map; labels only compare,
none is learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from era_cache.errors import InputError
from era_cache.fitting.adapter import Adapter, References
from era_cache.fitting.alignment.methods import ALIGNMENTS, align_rows
from era_cache.fitting.candidates import VIEWS_READ
from era_cache.fitting.config import FitConfig
from era_cache.fitting.crossfit import Fitted
from era_cache.fitting.held_out import Part
from era_cache.fitting.label_free import joined_start, label_free, spread
from era_cache.fitting.means import luck, macro
from era_cache.fitting.tensors import Documents
from era_cache.types import FloatArray

if TYPE_CHECKING:
    import torch

__all__ = [
    "ALIGN_TEXTS",
    "Begin",
    "align",
    "begin_of",
    "choose_scale",
    "document_references",
    "free_adapters",
    "untrained",
]

ALIGN_TEXTS = ("documents", "queries", "both")
"""What the spaces may be aligned on; queries are those of training, else those without labels."""


def untrained(
    adapter: Adapter, parts: Sequence[Part], references: References | None = None
) -> Fitted:
    """A map as it is, with references where there are any, and its values for all judges."""
    if references is not None:
        adapter = adapter._replace(references=(references,))
    values, mapped = [], []
    for part in parts:
        queries, rows = part.labels.queries, part.labels.judges
        views = {name: vectors[rows] for name, vectors in queries.views.items()}
        mapped.append(adapter.mapped(views))
        values.append(part.judged(mapped[-1]))
    return Fitted(adapter, tuple(values), {}, tuple(mapped), tuple(values))


def document_references(
    parts: Sequence[Part], config: FitConfig, documents: Sequence[Documents] = ()
) -> References | None:
    """The alignment documents as references of the large view; None where there are to be none.

    Args:
        parts: the collections.
        config: how many of each, and how they correct.
        documents: of further collections, which have no labels.
    """
    import torch

    most = config.reference_documents
    if not most:
        return None
    pairs = [(part.data.align_large, part.data.align_small) for part in parts]
    pairs += [(one.large, one.small) for one in documents]
    large, small = zip(*pairs, strict=True)
    return References(
        "large",
        torch.cat([vectors[:most] for vectors in large]),
        torch.cat([vectors[:most] for vectors in small]),
        config.reference_temperature,
        *config.default_reference_step,
    )


def align(
    parts: Sequence[Part], config: FitConfig, documents: Sequence[Documents] = ()
) -> tuple[Adapter, str]:
    """The label-free map of the texts that the configuration asks for, and the method's name.

    ``auto`` takes the method whose untrained map ranks best for the labelled queries, which no
    training has used yet; of equal ones, and without labels, the first.

    Args:
        parts: the collections.
        config: texts and method.
        documents: of further collections, which have no labels.

    Raises:
        InputError: there is no such method, or no such kind of text.
        FitError: there are no texts, or they do not fit the method.
    """
    import torch

    if config.align_texts not in ALIGN_TEXTS:
        raise InputError(
            f"Alignment texts '{config.align_texts}'; expected one of {', '.join(ALIGN_TEXTS)}."
        )
    pairs = []
    for part in parts:
        if config.align_texts in ("documents", "both"):
            pairs.append((part.data.align_large, part.data.align_small))
        if config.align_texts in ("queries", "both"):
            queries = part.data.train
            if not len(queries.ids) and part.data.unlabelled is not None:
                queries = part.data.unlabelled
            views = queries.views
            pairs.append((views["large"], views["small"]))
    if config.align_texts != "queries":
        pairs += [(one.large, one.small) for one in documents]
    large, small = (torch.cat(column) for column in zip(*pairs, strict=True))
    home = large.device
    if home.type == "mps":  # has no float64
        large, small = large.cpu(), small.cpu()
    names = tuple(ALIGNMENTS) if config.align == "auto" else (config.align,)
    maps = {name: align_rows(large, small, name, config.seed).to(home) for name in names}
    if len(maps) == 1:
        return maps[names[0]], names[0]
    references = document_references(parts, config, documents)
    ranked = {name: untrained(map_, parts, references).mean for name, map_ in maps.items()}
    best = max(ranked, key=lambda name: ranked[name])
    return maps[best], best


class Begin(NamedTuple):
    """What every candidate begins with, no label having a part in it.

    ``aligned`` is the map of the large view; ``spread`` (d_out, d_out) is that of queries;
    ``method`` of the alignment.
    """

    aligned: Adapter
    spread: torch.Tensor
    references: References | None
    method: str


def begin_of(
    parts: Sequence[Part], config: FitConfig, documents: Sequence[Documents] = ()
) -> Begin:
    """The alignment of some collections, how their indexes are spread, and their references.

    Args:
        parts: the collections; may be none if there are documents.
        config: texts and method of the alignment, spread, references.
        documents: of further collections, which have no labels.

    Raises:
        InputError: there is no such method, or no such kind of text.
        FitError: there are no texts, or they do not fit the method.
    """
    aligned, method = align(parts, config, documents)
    indexes = [part.data.corpus for part in parts] + [one.corpus for one in documents]
    references = document_references(parts, config, documents)
    return Begin(aligned, spread(indexes, config), references, method)


def free_adapters(begin: Begin, config: FitConfig) -> dict[str, Adapter]:
    """``aligned`` and ``era-zero``, in which no label has a part."""
    aligned, references = begin.aligned, begin.references
    tables = () if references is None else (references,)
    return {
        "aligned": aligned._replace(references=tables),
        "era-zero": label_free(aligned.weight, begin.spread, references, config),
    }


def choose_scale(
    parts: Sequence[Part],
    aligned: torch.Tensor,
    spread: torch.Tensor,
    references: References | None,
    config: FitConfig,
) -> tuple[float, tuple[FloatArray, ...]]:
    """The weight of the large view at which the untrained dual view ranks best.

    Returns:
        The scale, and what choosing it adds to the value of each judging query (``luck``).
    """

    def values(scale: float) -> tuple[FloatArray, ...]:
        start = Adapter(VIEWS_READ["era-dual"], joined_start(aligned, scale, spread))
        return untrained(start, parts, references).values

    found = [values(scale) for scale in config.scales]
    best = max(range(len(found)), key=lambda i: macro(found[i]))
    return config.scales[best], luck(found, best)

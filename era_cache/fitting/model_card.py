"""The README of an adapter folder.

In: what the folder says of itself. Out: Markdown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from era_cache.fitting.adapter import Fusion
from era_cache.fitting.adapter_config import AdapterConfig
from era_cache.fitting.candidates import unfused_name
from era_cache.fitting.held_out import PRIMARY

__all__ = ["arrays_card", "model_card"]


def _joined(chosen: str, fusion: Fusion | None, made: object = None) -> str:
    """How whoever serves the chosen candidate adds its first stage, which ``made`` describes."""
    if fusion is None:
        return ""
    how = f" ({json.dumps(made)})" if made else ""
    return f"""
The chosen candidate is joined with **{fusion.run}**{how}. Rank by

    score(query, document) = cosine + {fusion.weight:g} * {fusion.run}_score

where a document that {fusion.run} does not return counts with its lowest score (0 for BM25, if
all matches are returned). Where {fusion.run} is not at hand, take the candidate
{unfused_name(chosen)}. The weight is for these scores: another engine's have another scale, so fit
with a run of the engine that will serve (`era-fit --run {fusion.run}=FILE`).
"""


def model_card(
    config: AdapterConfig, means: Mapping[str, float], fusion: Fusion | None = None
) -> str:
    """Describe an adapter that was fitted from a store.

    Args:
        config: of the folder, with ``encoders`` and ``split``.
        means: candidate to its held-out mean; NaN where no label judges.
        fusion: the first stage that the chosen candidate is joined with.
    """
    fitted, encoders = config.fitted_on(), config.encoders or {}
    query, document, split = encoders["query"], encoders["document"], fitted[0].split
    names = ", ".join(one.collection.name for one in fitted)
    if config.aligned_with:
        names = f"{', '.join(one.name for one in config.aligned_with)} (labels of {names})"
    parts = [one.split.queries for one in fitted if one.split.queries is not None]
    train, validation = sum(p.train for p in parts), sum(p.validation for p in parts)
    how = (
        f"Fitted on {train} training and {validation} validation queries\n({split.labels:.0%} of "
        f"the labels, split seed {split.seed}), aligned on"
        if train
        else "Fitted without any label, aligned on"
    )
    said = (
        "Held-out values are corrected for the choices they made; measure with\n`era-eval`."
        if train
        else "Nothing was measured on this collection; measure with `era-eval` once there are\n"
        "judgements."
    )
    return f"""# Retrieval adapter for {names}

Maps queries of **{query.name}** (fingerprint `{query.fingerprint[:12]}`) into the document
space of **{document.name}** (fingerprint `{document.fingerprint[:12]}`). Documents and index
stay as they are. Chosen candidate: **{config.chosen}** — {config.choice_reason}.

{_table(config.chosen, means)}

{how}
{config.alignment_documents} documents, with ERA Cache {config.environment["era_cache"]}. Test
queries took no part. {said}
{_joined(config.chosen, fusion, config.first_stage.get(fusion.run) if fusion else None)}
The files hold vectors of alignment documents and of labelled queries (its references): share them
as you would share those texts' vectors.

Use it, with both models as they were:

    import era_cache
    vectors = era_cache.QueryEncoder("this folder").encode(["a query"])  # ask the index with these

or with vectors that you made with the encoders and prompts named in `config.json` (those of other
encoders give wrong results):

    adapter = era_cache.load_adapter("this folder")
    vectors = adapter.apply({{"large": large_queries, "small": small_queries}})
"""


def _table(chosen: str, means: Mapping[str, float]) -> str:
    rows = "\n".join(
        f"| {name}{' **(chosen)**' if name == chosen else ''} | "
        f"{'not measured' if math.isnan(mean) else f'{mean:.4f}'} |"
        for name, mean in means.items()
    )
    return f"| candidate | held-out {PRIMARY} |\n|---|---|\n{rows}"


def arrays_card(
    chosen: str, reason: str, means: Mapping[str, float], fusion: Fusion | None = None
) -> str:
    """Describe an adapter that was fitted on arrays; arguments as for ``model_card``."""
    return f"""# Retrieval adapter

Maps query vectors into the space of an existing index. Fitted on arrays: which encoders made them
is not recorded. Chosen candidate: **{chosen}** — {reason}.

{_table(chosen, means)}
{_joined(chosen, fusion)}
The files hold vectors of alignment documents and of labelled queries (its references): share them
as you would share those texts' vectors.

    from era_cache.api import RetrievalAdapter
    adapter = RetrievalAdapter.load("this folder")
    vectors = adapter.transform(large_queries, small_queries)
"""

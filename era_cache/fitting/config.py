"""Defaults of fitting, written once. The command line reads its own from here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["FitConfig", "FitOptions", "PaperConfig"]


@dataclass(frozen=True)
class FitConfig:
    """The default recipe. docs/fitting.md gives the measurements behind each number."""

    seed: int = 0
    """Of the folds, of pools, and of shapes that start at random."""
    align: str = "procrustes"
    """Alignment method; ``auto`` takes the one that ranks best for labelled queries, untrained."""
    align_documents: int = 1000
    """Documents that alignment uses at most."""
    align_texts: str = "documents"
    """What the spaces are aligned on: ``documents``, ``queries`` (training only) or ``both``."""
    shape: str = "linear"
    """Of the trained part: ``linear``, ``low-rank`` or ``mlp``."""
    rank: int = 32
    hidden: int = 128
    temperature: float = 0.05
    """Of the softmax over the corpus; 0.03 and 0.1 were no better."""
    learn_temperature: bool = False
    strengths: tuple[float, ...] = (24.0, 8.0, 2.5)
    """Of the pull towards the start, divided by the number of queries; held-out labels choose."""
    iterations: int = 6
    """L-BFGS steps at each strength; each goes on from the one before."""
    folds: int = 5
    few_folds: int = 2
    """Folds where there are ``many_labels`` labelled queries or more."""
    many_labels: int = 300
    refit: bool = True
    """Whether the chosen setting is trained again on training and validation queries together."""
    scales: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Weights of the aligned large view against the small one at the start of era-dual."""
    spread: float = 0.25
    """How far queries are spread over directions that documents use little; 0 for not at all."""
    spread_shrink: float = 0.1
    """Share of the documents' moment that is taken as equal in all directions."""
    zero_scale: float = 0.1
    """Weight of the aligned large view in era-zero."""
    zero_temperature: float = 0.05
    """Of the references of era-zero."""
    zero_step: tuple[float, int] = (0.3, 32)
    """Step and number of steps of era-zero."""
    zero_pull: float = 0.09
    """Pull of era-zero towards where its queries begin, at each step."""
    reference_documents: int = 1000
    """Alignment documents that an adapter keeps as references, at most; 0 for none."""
    reference_temperature: float = 0.05
    reference_steps: tuple[tuple[float, int], ...] = (
        (0.0, 1),
        (0.1, 1),
        (0.25, 1),
        (0.5, 1),
        (0.5, 2),
    )
    """Pairs of step and number of steps; held-out labels choose."""
    default_reference_step: tuple[float, int] = (0.5, 2)
    """What ``aligned`` uses, and trained candidates until labels choose."""
    memory_steps: tuple[float, ...] = (0.1, 0.2, 0.4)
    """Steps of the memory of labelled queries that held-out labels choose from; empty for none."""
    memory_temperature: float = 0.05
    fusion_weights: tuple[float, ...] = (
        *(0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7),
        *(1.0, 1.4, 2.0, 3.0),
    )
    """Weights of a first stage beside the cosine, as ratios of their spreads; 0 is among them."""
    fusion_default: float = 0.5
    """The weight without labels, and where labels leave it open."""
    negatives: str = "corpus"
    """Documents of the softmax: ``corpus``, ``in-batch``, or a strategy of ``mining``."""
    negatives_per_query: int = 50
    """How many a mining strategy chooses."""
    duplicates: float = 0.999
    """Documents at least this similar to a positive are no candidates; above 1 for no such rule."""
    pool_documents: int = 1000
    """Documents of the softmax beside the judged ones: those that queries find first, found anew at
    each strength. At least one for each labelled query, and 7.5 % of a corpus, up to 20,000."""
    mined_per_query: int = 200
    """Documents that a query is asked for to fill the pool, at most."""
    judge_exactly: int = 100_000
    """Documents up to which every setting is judged by a search of all; see judging_pool."""
    block_bytes: int = 1 << 26
    """Scores held at a time."""
    stack_bytes: int = 1 << 30
    """Memory of adapters that are trained together, roughly; more are trained one after another."""


@dataclass(frozen=True)
class FitOptions:
    """How to fit: the recipe, the candidate that ships, and where.

    ``candidate`` is ``auto``, or a name from ``fitting.candidates`` that ships whatever labels
    say; ``device`` a torch device name, None for the best at hand; ``progress`` is told in words
    what is being fitted; True prints it on stderr.
    """

    config: FitConfig = field(default_factory=FitConfig)
    candidate: str = "auto"
    device: str | None = None
    progress: Callable[[str], None] | bool | None = None

    @property
    def tell(self) -> Callable[[str], None] | None:
        """Whom to tell; None for nobody."""
        if isinstance(self.progress, bool):
            return _on_stderr if self.progress else None
        return self.progress


def _on_stderr(text: str) -> None:
    sys.stderr.write(f"fitting {text} …\n")


@dataclass(frozen=True)
class PaperConfig:
    """The published recipe (arXiv 2604.03403 and its code); see docs/fitting.md."""

    seed: int = 42
    mode: str = "both"
    """``both`` stages, ``alignment_only``, or ``label_only`` (the paper's "Embedding Adapter")."""
    align_documents: int = 1000
    align_loss: str = "cosine"
    """Of stage 1: ``cosine`` (1 - cosine), ``mse`` or ``smooth_l1`` of the unit vectors."""
    align_learning_rate: float = 1e-3
    align_weight_decay: float = 0.01
    align_epochs: int = 100
    align_holdout: float = 0.1
    batch: int = 256
    learning_rates: tuple[float, ...] = (1e-5, 1e-3)
    """Shell script's and entry point's default; the better one on validation is kept."""
    weight_decays: tuple[float, ...] = (1e-4, 1e-2)
    """One for each learning rate, as published together."""
    epochs: int = 1000
    patience: int = 5
    warmup: float = 0.1
    strategy: str = "topk_percpos"
    """How negatives are mined: ``random``, ``naive_topk`` or ``topk_percpos``."""
    negatives: int = 5
    mine_top: int = 2000
    positive_share: float = 0.95
    """A mined negative scores below this share of the positive's score (topk_percpos)."""
    temperature: float = 0.05

"""Every default, written once. The command line reads its defaults from here."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EmbedConfig", "FitConfig", "PaperConfig", "SplitConfig"]


@dataclass(frozen=True)
class EmbedConfig:
    """How texts are encoded and stored."""

    align_documents: int = 1000
    """Documents that the large model encodes for alignment (the paper's number)."""
    align_seed: int = 42
    """Chooses the sample; a larger sample of the same seed contains the smaller."""
    batch_tokens: int = 8192
    """Tokens of one batch, padding included."""
    dtype: str = "float16"
    """Stored precision: float32, float16 or int8."""
    seal_seconds: float = 30.0
    """Longest stretch of encoding that a killed process can lose, roughly."""
    seal_bytes: int = 64 << 20
    """Largest amount of vectors held back before they are committed."""
    note: str = ""
    """The user's own words, kept in the provenance of each segment."""


@dataclass(frozen=True)
class SplitConfig:
    """The paper's split: shuffle the judged queries; test is the tail, training the head."""

    rule: str = "paper"
    """``paper``, or ``source`` for the collection's own train, dev and test."""
    seed: int = 42
    labels: float = 0.2
    """Share of the judged queries that training may use (paper: 0.05, 0.1, 0.2, 0.4)."""
    test: float = 0.5
    validation: float = 0.1


@dataclass(frozen=True)
class FitConfig:
    """Alignment and training of the default recipe. docs/fitting.md gives the measurements."""

    seed: int = 0
    align_documents: int = 1000
    """Documents that alignment uses at most."""
    temperature: float = 0.05
    """Of the softmax over the corpus; 0.05 beat 0.02 and 0.1."""
    learning_rate: float = 2e-3
    batch_queries: int = 64
    round_steps: int = 8
    """Steps between two looks at validation, at least; a pass over the queries if that is more."""
    max_rounds: int = 60
    patience: int = 4
    """Rounds without a better validation value before training stops."""
    teacher: float = 0.3
    """Weight of the large model's own ranking of the alignment documents as a label-free teacher
    of candidates that read the large view; 0 leaves it out."""
    teacher_documents: int = 1000
    """Alignment documents that the teacher ranks, at most."""
    anchors: tuple[float, ...] = (1e-2, 1e-3)
    """Strengths of the pull towards the starting map; validation chooses."""
    scales: tuple[float, ...] = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
    """Weights of the aligned large view against the small one at the start of era-dual; training
    and validation queries choose, before training."""
    pool_documents: int = 20_000
    """Largest number of documents in the softmax; larger corpora are mined (see train.py)."""
    mined_per_query: int = 200
    """Documents mined for each training query when the corpus is larger than the pool."""


@dataclass(frozen=True)
class PaperConfig:
    """The published recipe (arXiv 2604.03403 and its code); see docs/fitting.md."""

    seed: int = 42
    align_documents: int = 1000
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
    negatives: int = 5
    mine_top: int = 2000
    positive_share: float = 0.95
    """A mined negative scores below this share of the positive's score (topk_percpos)."""
    temperature: float = 0.05

"""Defaults of encoding, written once. The command line reads its own from here."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EmbedConfig"]


@dataclass(frozen=True)
class EmbedConfig:
    """How texts are encoded and stored."""

    align_documents: int = 1000
    """Documents that the large model encodes for alignment (the paper's number)."""
    align_sample: str = ""
    """``random``, ``retrieved``, or empty for what the queries there are allow."""
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
    skip_bad_rows: bool = False
    """Whether texts whose vectors cannot be used are left out of the collection, not an error."""
    shard: tuple[int, int] = (1, 1)
    """Which of how many shares of the texts are encoded, from 1."""

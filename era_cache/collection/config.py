"""Defaults of the split, written once. The command line reads its own from here."""

from __future__ import annotations

from dataclasses import dataclass

from era_cache.errors import InputError

__all__ = ["SplitConfig"]


@dataclass(frozen=True)
class SplitConfig:
    """The paper's split: shuffle the judged queries; test is the tail, training the head."""

    rule: str = "paper"
    """``paper``; ``paper-exact``, without our rule for equal texts; or ``source`` for the
    collection's own train, dev and test."""
    seed: int = 42
    labels: float = 0.2
    """Share of the judged queries that training may use (paper: 0.05, 0.1, 0.2, 0.4)."""
    test: float = 0.5
    validation: float = 0.1
    count: int = 0
    """Training queries at most, whatever the share allows; 0 for no such limit."""

    def checked(self) -> SplitConfig:
        """The same, once it is sure that its shares fit together.

        Raises:
            InputError: an impossible share of labels.
        """
        if not 0 <= self.labels <= 1:
            raise InputError(f"Share of labels {self.labels}: expected 0 to 1 (100 %).")
        most = 1 - self.validation - self.test
        if self.rule != "source" and self.labels > most + 1e-9:
            raise InputError(
                f"Share of labels {self.labels}: at most {most:.0%} under the paper's rule."
            )
        return self

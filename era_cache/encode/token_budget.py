"""Texts by their tokens: what no model would read left out, and batches within a budget.

In: texts, or their numbers of tokens. Out: texts, or rows of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["MeasuredTexts", "batches", "shortened"]

_CHARACTERS_PER_TOKEN = 16
"""More than texts have on the average, in any language."""
_SPARE_TOKENS = 64


class MeasuredTexts(list[str]):
    """Rendered texts whose tokens were counted before they are encoded.

    Args:
        texts: rendered; very long ones may lack what no model would read.
        lengths: tokens of each that are read; None where they are of no account.
    """

    def __init__(self, texts: Iterable[str], lengths: list[int] | None) -> None:
        super().__init__(texts)
        self.lengths = lengths


def shortened(
    texts: Sequence[str], limit: int, count: Callable[[Sequence[str]], list[int]]
) -> tuple[list[str], list[int]]:
    """Cut from very long texts what lies far behind the limit: it would be tokenised in vain.

    A text is cut at a blank, where tokenizers part words, and only where what is left has many more
    tokens than the limit; else it is taken twice as long.

    Args:
        texts: whole.
        limit: tokens that the model reads.
        count: tokens of each text.

    Returns:
        The texts, and their tokens: of a cut one some number above the limit.
    """
    kept, enough = list(texts), limit + _SPARE_TOKENS
    lengths = [0] * len(kept)
    size = max(1 << 12, _CHARACTERS_PER_TOKEN * limit)
    pending = list(range(len(kept)))
    while pending:
        cut = {}
        for row in pending:
            if len(texts[row]) > 2 * size:
                end = max(texts[row].rfind(blank, 0, size) for blank in " \n\t")
                if end > size // 2:
                    cut[row] = texts[row][:end]
        for row, length in zip(
            pending, count([cut.get(row, texts[row]) for row in pending]), strict=True
        ):
            lengths[row] = length
            if row in cut and length >= enough:
                kept[row] = cut.pop(row)
        pending, size = list(cut), 4 * size
    return kept, lengths


def batches(
    lengths: list[int] | None, count: int, budget: int, most: int, *, one_length: bool = False
) -> Iterator[list[int]]:
    """Cut rows, longest first, into batches whose padded size stays within the budget.

    Args:
        lengths: tokens of each text; None where they are of no account.
        count: of texts.
        budget: tokens of a batch.
        most: texts of a batch.
        one_length: whether a batch may hold texts of one length only.
    """
    if lengths is None:
        yield from (list(range(start, min(start + most, count))) for start in range(0, count, most))
        return
    order = sorted(range(count), key=lambda row: -lengths[row])
    start = 0
    while start < count:
        longest = lengths[order[start]]
        size = max(1, min(most, budget // max(1, longest)))
        if one_length:
            size = next(
                (n for n, row in enumerate(order[start : start + size]) if lengths[row] < longest),
                size,
            )
        yield order[start : start + size]
        start += size

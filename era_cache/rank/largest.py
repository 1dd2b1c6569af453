"""The largest numbers of each row: on processors by numpy, whose sorting uses their vector units.

In: scores or packed keys. Out: the k largest of each row. A topk of torch takes several times as
long where k is large.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["falling", "highest"]

_IN_TURN, _FEW = 32, 64
"""Scores that are first represented by their maximum; where there are so many for each one that is
looked for."""
_MANY = 32
"""From how many on numpy looks for them."""
_WORTH_THREADS = 1 << 19
"""Numbers from which on it is worth to look for them in several threads."""


def falling(keys: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest of each row of keys (q, n) int64, the largest first; k is at most n."""
    if keys.device.type != "cpu":
        return keys.topk(k, dim=1).values
    # What is flipped bit by bit rises where it fell.
    return _in_threads(lambda rows: ~np.sort(~rows, axis=1)[:, :k], keys.numpy())


def highest(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k highest of each row of scores (q, n) and their columns, both (q, k).

    They come in any order, but the lowest of them last. NaN counts as highest.
    """
    if scores.device.type == "cpu" and k >= _MANY:
        return _by_parts(scores, k)
    if scores.device.type == "cpu" and scores.shape[1] >= _FEW * k:
        return _by_maxima(scores, k)
    top = scores.topk(k, dim=1)
    return top.values, top.indices


def _by_maxima(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``topk``.

    Scores are compared by the largest of every ``_IN_TURN`` first, which are as far apart as there
    are such maxima: so neighbours are compared with neighbours, at the speed of memory. The k
    highest are among those whose maxima are the k highest, since k maxima above one of them would
    be k higher scores; a topk of these takes a fraction of the time.
    """
    import torch

    width = scores.shape[1] // _IN_TURN
    parts = scores[:, : _IN_TURN * width].unflatten(1, (_IN_TURN, width))
    lead = parts.amax(dim=1).topk(k, dim=1, sorted=False).indices
    near = parts.gather(2, lead[:, None].expand(-1, _IN_TURN, -1)).flatten(1)
    # Those that are left over at the end are in no maximum.
    top = torch.cat([near, scores[:, _IN_TURN * width :]], dim=1).topk(k, dim=1)
    turn = top.indices // k
    columns = turn * width + lead.gather(1, top.indices % k)
    return top.values, columns.where(turn < _IN_TURN, top.indices - _IN_TURN * (k - width))


def _by_parts(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    n = scores.shape[1]

    def found(rows: NDArray[Any]) -> NDArray[Any]:
        return np.argpartition(rows, n - k, axis=1)[:, n - k :][:, ::-1]  # the lowest was first

    columns = _in_threads(found, scores.numpy())
    return scores.gather(1, columns), columns


def _in_threads(one: Callable[[NDArray[Any]], NDArray[Any]], rows: NDArray[Any]) -> torch.Tensor:
    """What numpy makes of each row, in as many threads as torch may use: it lets others run."""
    import torch

    threads = torch.get_num_threads()
    if threads < 2 or rows.size < _WORTH_THREADS:
        return torch.from_numpy(np.ascontiguousarray(one(rows)))
    with ThreadPoolExecutor(threads) as pool:
        return torch.from_numpy(np.concatenate([*pool.map(one, np.array_split(rows, threads))]))

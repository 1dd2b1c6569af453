"""Workers of a Ray cluster: asked for, given chunks of texts, replaced where they die.

In: a kind of worker, chunks. Out: what became of each chunk. A chunk whose worker died is given to
another; chunks are few at a time, however many there are.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from era_cache.errors import EncoderError, EraError, InputError
from era_cache.types import IntArray

__all__ = ["Pool", "Workers", "import_ray"]

_AHEAD = 2
"""Chunks that a worker has at once: the next is there when one is done."""
_ATTEMPTS = 4
"""Times that texts are given out; a text that kills its worker must not kill all."""
_PATIENCE = 120.0
"""Seconds in which the first worker must have begun; a cluster that grows needs some."""


class Workers(NamedTuple):
    """How many workers, and what each one occupies.

    ``address`` of a running cluster; None starts Ray on this machine. At least ``fewest`` must
    begin; more join as the cluster has room, up to ``most``.
    """

    fewest: int = 1
    most: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None


class _Given(NamedTuple):
    """A chunk that a worker has."""

    worker: Any
    rows: IntArray
    chunk: Any
    attempt: int
    number: int
    """Counts up: of the chunks that a worker has, the one it has longest is what it works on."""


class Pool:
    """Workers of a cluster, and the chunks that they have."""

    def __init__(self, workers: Workers) -> None:
        self._ray = import_ray()
        self._workers = workers
        self._beginning: dict[Any, Any] = {}
        """What tells that a worker has begun, by the reference to it."""
        self._make: Callable[[], Any] = lambda: None
        self._idle: list[Any] = []
        self._worked_on: dict[Any, int] = {}
        """Of workers that died: the chunk that they were working on."""
        self._all: list[Any] = []
        self.pids: list[int] = []

    @property
    def alive(self) -> bool:
        """Whether it has workers."""
        return bool(self._all)

    def start(self, kind: type, *arguments: Any) -> None:
        """Ask for workers, which are made of these arguments; begun, they are used as they come.

        A kind has methods ``ready``, which gives the number of its process, ``encode`` and
        ``finish``.

        Raises:
            EncoderError: too few could begin.
            EraError: what one met when it began.
        """
        ray, asked = self._ray, self._workers
        if not ray.is_initialized():
            ray.init(
                address=asked.address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        actor = ray.remote(num_cpus=asked.cpus, num_gpus=asked.gpus, max_restarts=0)(kind)
        self._make = lambda: actor.remote(*arguments)
        for _ in range(asked.most):
            self._ask_for_one()
        for _ in range(asked.fewest):
            begun, _rest = ray.wait(list(self._beginning), num_returns=1, timeout=_PATIENCE)
            if not begun:
                raise self._no_room()
            self._begun(begun[0])

    def _ask_for_one(self) -> None:
        worker = self._make()
        self._all.append(worker)
        self._beginning[worker.ready.remote()] = worker

    def _no_room(self) -> EncoderError:
        asked, whole = self._workers, self._ray.cluster_resources()
        free = self._ray.available_resources()
        return EncoderError(
            f"The cluster did not start {asked.fewest} workers of {asked.cpus:g} processors and "
            f"{asked.gpus:g} GPUs in {_PATIENCE:g} seconds: it has {whole.get('CPU', 0):g} "
            f"processors ({free.get('CPU', 0):g} free) and {whole.get('GPU', 0):g} GPUs "
            f"({free.get('GPU', 0):g} free). Lower --workers, --worker-cpus or --worker-gpus."
        )

    def _begun(self, reference: Any) -> None:
        worker = self._beginning.pop(reference)
        try:
            self.pids.append(self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            raise _own(error) from error
        self._idle += [worker] * _AHEAD

    def run(
        self, chunks: Callable[[], Iterator[tuple[IntArray, Any]]], *more: Any
    ) -> Iterator[tuple[IntArray, Any]]:
        """Give out chunks; yield their rows and what became of them, as they are done.

        Args:
            chunks: gives rows and what a worker needs of them, which has ``ids``.
            more: what every worker is told, too.

        Raises:
            EncoderError: the same texts killed one worker after the other, or none is left.
            EraError: what a worker met.
        """
        ray = self._ray
        left = ((rows, chunk, 1) for rows, chunk in chunks())
        again: list[tuple[IntArray, Any, int]] = []
        given: dict[Any, _Given] = {}
        number = itertools.count()
        while True:
            while self._idle and (following := again.pop() if again else next(left, None)):
                worker = self._idle.pop()
                given[worker.encode.remote(following[1], *more)] = _Given(
                    worker, *following, next(number)
                )
            if not given and not again:
                return
            found, _rest = ray.wait(
                [*given, *self._beginning], num_returns=1, timeout=None if given else _PATIENCE
            )
            if not found:  # all that there were have died
                raise self._no_room()
            first = found[0]
            if first in self._beginning:
                self._begun(first)
                continue
            one = given.pop(first)
            try:
                done = ray.get(first)
            except ray.exceptions.RayActorError as error:
                waiting = [other.number for other in given.values() if other.worker is one.worker]
                first_of = self._worked_on.setdefault(one.worker, min([one.number, *waiting]))
                blamed = one.number == first_of
                self._died(one, error, blamed=blamed)
                again.append((one.rows, one.chunk, one.attempt + blamed))
                continue
            except ray.exceptions.RayError as error:
                raise _own(error) from error
            self._idle.append(one.worker)
            yield one.rows, done

    def _died(self, one: _Given, error: Exception, *, blamed: bool) -> None:
        """A worker is gone: another is asked for, and the others go on."""
        self._idle = [worker for worker in self._idle if worker is not one.worker]
        if blamed and one.attempt >= _ATTEMPTS:
            names = ", ".join(map(repr, one.chunk.ids[:5]))
            raise EncoderError(
                f"{_ATTEMPTS} workers died over the same {len(one.rows):,} texts (the first are "
                f"{names}); what others finished is stored. Is memory short? "
                f"({str(error).splitlines()[0]})"
            ) from error
        if one.worker in self._all:
            self._all.remove(one.worker)
            self._ask_for_one()

    def finish(self) -> None:
        """Let the workers merge what they wrote; one that dies over it leaves it unmerged."""
        begun = [worker for worker in self._all if worker not in self._beginning.values()]
        for reference in [worker.finish.remote() for worker in begun]:
            with contextlib.suppress(self._ray.exceptions.RayActorError):
                self._ray.get(reference)

    def stop(self) -> None:
        """Let the workers go, so that others have room."""
        for worker in self._all:
            self._ray.kill(worker)
        self._all, self._idle, self._beginning = [], [], {}


def _own(error: Exception) -> Exception:
    """What went wrong in a worker, as it would have been told here."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, EraError):
        return cause
    return EncoderError(f"A worker failed: {str(error).strip().splitlines()[-1]}")


def import_ray() -> Any:
    """The module ``ray``. Raises ``InputError`` where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--engine ray needs Ray: pip install 'era-cache[ray]' on every machine of the cluster."
        ) from error
    return ray

"""Ctrl-C that is noted instead of raised, where what is on its way is paid for.

In: a block that asks now and then whether Ctrl-C came. Out: nothing is lost between two lines.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

__all__ = ["NotedInterrupt"]


class NotedInterrupt:
    """Within the block the first Ctrl-C only sets ``came``; a second one is raised at once.

    An exception can come between any two lines, so that what was just sent or answered would be
    known to nobody. In other threads than the main one, and where somebody else handles Ctrl-C,
    nothing is changed.
    """

    def __init__(self) -> None:
        self.came = False
        """Whether to end soon, by ``KeyboardInterrupt``."""
        self._held = False

    def __enter__(self) -> Self:
        """Take Ctrl-C from the interpreter."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._held = True
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back."""
        if self._held:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            signal.default_int_handler(number, frame)
        self.came = True

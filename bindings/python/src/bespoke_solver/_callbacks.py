"""Callbacks that the library calls from within a call of ours, and what is raised in them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import _native


class Raised:
    """Carries an exception past the library's frames: out of a callback, or out of a signal's handler."""

    def __init__(self) -> None:
        self.exception: BaseException | None = None

    def guard(self, body: Callable[..., Any]) -> Callable[..., int]:
        """``body`` as a callback: 0 when it returns; its exception is kept, and answered with 1."""

        def callback(*arguments: Any) -> int:
            if self.exception is not None:
                return 1
            try:
                answer = int(bool(body(*arguments)))
            except BaseException as exception:  # raised again by `check`, past the library's frames
                self.keep(exception)
                return 1
            return answer if self.exception is None else 1

        return callback

    def keep(self, exception: BaseException) -> None:
        """Keeps the first exception for `check`."""
        if self.exception is None:
            self.exception = exception

    def check(self, status: int) -> None:
        """Raises what was kept, or what the status says."""
        if self.exception is not None:
            raise self.exception
        _native.check(status)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Keeps what signal handlers raise meanwhile, as that of Ctrl-C does, and has the next callback end the call.

        Python runs them in the main thread, and so within a callback: before the `try` of `guard`, or after it, where
        an exception would be lost and the library answered with whatever lies on the stack.
        """
        earlier: list[tuple[int, Any]] = []

        def handle(number: int, frame: Any) -> None:
            try:
                dict(earlier)[number](number, frame)
            except BaseException as exception:
                self.keep(exception)

        if threading.current_thread() is threading.main_thread():
            handlers = ((number, signal.getsignal(number)) for number in signal.valid_signals())
            earlier.extend((number, handler) for number, handler in handlers if callable(handler))
        try:
            for number, _ in earlier:
                signal.signal(number, handle)
            yield
        finally:
            # The last to come back is Ctrl-C's: whatever it raises then comes out of here by itself.
            for number, handler in reversed(earlier):
                try:
                    signal.signal(number, handler)
                except BaseException as exception:
                    self.keep(exception)

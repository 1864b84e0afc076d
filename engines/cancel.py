"""Cancellation: a token that one thread sets and the thread at work notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

from hicom_edge.errors import Cancelled


class CancelToken:
    """Cancels the calls it was passed to; safe to use from any thread, and cannot be unset.

    A running ONNX Runtime graph stops at its next node. Other engines notice between two runs.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_cancelled = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._is_cancelled

    def cancel(self) -> None:
        """Cancel every call that uses this token, those that run and those still to come."""
        with self._lock:
            self._is_cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise Cancelled after `cancel`."""
        if self._is_cancelled:
            raise Cancelled("the call was cancelled by its caller before it finished")

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Run `callback` in the thread that cancels, once, if that happens inside the block.

        The callback must be harmless when it runs slightly after the block was left.
        """
        with self._lock:
            if not self._is_cancelled:
                self._callbacks.append(callback)
        if self._is_cancelled:
            self.check()
        try:
            yield
        finally:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

    @contextmanager
    def following(self, *others: CancelToken | None) -> Iterator[None]:
        """Inside the block, be cancelled together with any of the others.

        Raises:
            Cancelled: one of the others is cancelled already.
        """
        with ExitStack() as stack:
            for other in others:
                if other is not None:
                    stack.enter_context(other.calling(self.cancel))
            yield


def check_cancelled(cancel: CancelToken | None) -> None:
    """Raise Cancelled if there is a token and it was cancelled."""
    if cancel is not None:
        cancel.check()


@contextmanager
def calling_on_cancel(cancel: CancelToken | None, callback: Callable[[], None]) -> Iterator[None]:
    """As `CancelToken.calling`; without a token the callback never runs."""
    if cancel is None:
        yield
        return
    with cancel.calling(callback):
        yield

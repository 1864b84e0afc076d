"""Runs in progress, so that closing stops them and waits until they have ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from hicom_edge.engines.cancel import CancelToken
from hicom_edge.errors import Cancelled, InputError


class Gate:
    """Lets threads in until it is closed.

    Args:
        what: names what is closed, in the error of late comers.

    Attributes:
        closing: is cancelled when the gate closes; pass it to long calls inside.
    """

    def __init__(self, what: str) -> None:
        self._error = f"this {what} is closed; load the bundle again"
        self._changed, self._inside = Condition(), 0
        self.closing = CancelToken()

    def check(self) -> None:
        """Raise InputError after `close`."""
        if self.closing.is_cancelled:
            raise InputError(self._error)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be inside for the length of the block.

        Raises:
            InputError: the gate is closed, or was closed meanwhile and stopped the block.
        """
        with self._changed:
            self.check()
            self._inside += 1
        try:
            yield
        except Cancelled:
            self.check()
            raise
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more, stop those who are inside, and wait until they have left."""
        self.closing.cancel()
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0)

"""A lock whose waiting threads get it in the order in which they asked."""

from __future__ import annotations

from collections import deque
from threading import Event, Lock, get_ident
from types import TracebackType
from typing import TYPE_CHECKING

from hicom_edge.engines.cancel import calling_on_cancel, check_cancelled

if TYPE_CHECKING:
    from hicom_edge.engines.cancel import CancelToken


class FairLock:
    """First come, first served, which threading.Lock does not promise.

    Any thread may release it. Use `with lock:`, or `acquire` and `release`.
    """

    def __init__(self) -> None:
        self._guard = Lock()
        self._holder: int | None = None
        self._queue: deque[_Turn] = deque()

    @property
    def is_held_here(self) -> bool:
        """Whether the thread that asks acquired it, so that waiting for it would never end."""
        return self._holder == get_ident()

    @property
    def num_waiting(self) -> int:
        """Threads in the queue."""
        return len(self._queue)

    def acquire(self, cancel: CancelToken | None = None) -> None:
        """Wait for the lock.

        Raises:
            Cancelled: `cancel` was set while waiting; the lock is not held then.
        """
        check_cancelled(cancel)
        with self._guard:
            if self._holder is None:
                self._holder = get_ident()
                return
            turn = _Turn()
            self._queue.append(turn)
        try:
            with calling_on_cancel(cancel, turn.event.set):
                turn.event.wait()
                check_cancelled(cancel)
        except BaseException:
            self._leave(turn)
            raise

    def release(self) -> None:
        """Hand the lock to the thread that has waited longest."""
        with self._guard:
            turn = self._queue.popleft() if self._queue else None
            self._holder = None if turn is None else turn.thread
            if turn is not None:
                turn.is_granted = True
                turn.event.set()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _leave(self, turn: _Turn) -> None:
        """Give up waiting; the lock may have been granted in the same moment."""
        with self._guard:
            if not turn.is_granted:
                self._queue.remove(turn)
                return
        self.release()


class _Turn:
    """One thread's place in the queue."""

    def __init__(self) -> None:
        self.thread, self.event, self.is_granted = get_ident(), Event(), False

"""Work spread over processes, with a count of what is done, that stops at once when interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from hicom_edge.errors import ResourceError

Tick = Callable[[], None]
Work = Callable[[int, Tick], None]
"""Does one item, and calls the tick for every unit of it."""


@dataclass(frozen=True)
class _Worker:
    """A process and the end of the pipe that it reports to.

    Every worker has a pipe of its own. With a queue for all, a worker that is killed while it
    writes would leave the others waiting for its lock, and the reader for the rest of a message.
    """

    process: BaseProcess
    receiver: Connection


def run_in_processes(work: Work, items: Sequence[int], processes: int, tick: Tick) -> None:
    """Call `work(item, tick)` for every item, in as many processes as there are items at most.

    However the call ends, no process is left. One that is at work then is killed, so `work` has to
    write its results atomically.

    Raises:
        ResourceError: a process was killed from outside, usually for lack of memory.
        Exception: whatever `work` raises.
    """
    count = min(processes, len(items))
    workers: list[_Worker] = []
    try:
        with _interrupts_blocked():
            for first in range(count):
                workers.append(_start(work, items[first::count]))
        _collect(workers, tick)
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.receiver.close()


def _start(work: Work, items: Sequence[int]) -> _Worker:
    # spawn: forking a process that already runs PyTorch's threads can deadlock
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(work, items, sender), daemon=True)
    process.start()
    sender.close()  # so that the pipe ends with the process
    return _Worker(process, receiver)


def _serve(work: Work, items: Sequence[int], sender: Connection) -> None:
    """Runs in a worker. Sends None for each tick, an exception, or True at the end."""
    try:
        for item in items:
            work(item, lambda: sender.send(None))
        sender.send(True)
    except BrokenPipeError:
        return  # the main process is gone
    except Exception as error:
        sender.send(error)


def _collect(workers: Sequence[_Worker], tick: Tick) -> None:
    waiting = {worker.receiver: worker.process for worker in workers}
    while waiting:
        for receiver in connection.wait(list(waiting)):
            assert isinstance(receiver, Connection)
            try:
                message = receiver.recv()
            except EOFError:
                process = waiting[receiver]
                process.join()
                raise ResourceError(
                    f"a worker process ended with exit code {process.exitcode}, expected 0; free "
                    "some memory and run the same command again"
                ) from None
            if isinstance(message, Exception):
                raise message
            if message:
                del waiting[receiver]
            else:
                tick()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes that start in here never get Ctrl-C, which a terminal sends to all of them.

    Only the main process handles it, and then ends the others. Here it waits until all have
    started.
    """
    # The tracker is started with the first process, and its start would unblock the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

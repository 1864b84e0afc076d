"""A long call into a library that calls back, which Ctrl-C and SIGTERM end.

Python raises a signal's exception in the main thread, in the next of its lines to run. Were that a
callback of TensorRT's, the binding would print the exception and the build would go on. So the main
thread waits, and the work is done in another one. It knows threads. It does not know the work.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import TypeVar

Result = TypeVar("Result")


def run_aside(work: Callable[[Event], Result]) -> Result:
    """What `work(stop)` returns or raises, from a thread of its own.

    Whatever is raised here meanwhile sets `stop` and is raised again once the work has ended, which
    should not be long after: it must leave no thread behind in files that are taken away.
    """
    stop, outcome = Event(), Future[Result]()

    def run() -> None:
        try:
            outcome.set_result(work(stop))
        except BaseException as error:
            outcome.set_exception(error)

    thread = Thread(target=run)
    try:
        thread.start()
        return outcome.result()
    except BaseException:
        stop.set()
        if thread.ident is not None:  # it began
            wait([outcome])
        raise

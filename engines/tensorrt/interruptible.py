"""Runs a long library call in a thread, so that Ctrl-C and SIGTERM can end it.

Python raises a signal's exception in the main thread, at the next Python line that runs there. If
that line were a callback from TensorRT, the binding would print the exception and the build would
go on. So the main thread waits while another one works.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import TypeVar

Result = TypeVar("Result")


def run_aside(work: Callable[[Event], Result]) -> Result:
    """Run `work(stop)` in a thread of its own, and return or raise what it does.

    An exception raised here meanwhile sets `stop`, and is raised again when the work has ended,
    which should be soon: the caller removes the files that the work writes to.
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
        if thread.ident is not None:  # it was started
            wait([outcome])
        raise

"""A call stops soon after another thread cancels it, and the engine works afterwards."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from cancelling import MOST_SECONDS, seconds_until_stopped
from onnx import TensorProto, helper

from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.cancel import CancelToken, calling_on_cancel, check_cancelled
from hicom_edge.engines.fair_lock import FairLock
from hicom_edge.engines.ort.sessions import session_options, stoppable
from hicom_edge.errors import Cancelled, EngineError


def test_a_token_stays_cancelled() -> None:
    token = CancelToken()
    token.check()
    token.cancel()
    token.cancel()
    assert token.is_cancelled
    with pytest.raises(Cancelled, match="the call was cancelled by its caller before it finished"):
        token.check()
    check_cancelled(None)


def test_a_callback_runs_once_and_only_inside_its_block() -> None:
    token, calls = CancelToken(), []
    with token.calling(lambda: calls.append("before")):
        pass
    with token.calling(lambda: calls.append("inside")):
        token.cancel()
        token.cancel()
    assert calls == ["inside"]
    with pytest.raises(Cancelled), token.calling(lambda: calls.append("after")):
        pytest.fail("the block was entered")
    with calling_on_cancel(None, lambda: calls.append("never")):
        pass
    assert calls == ["inside"]


def test_a_lock_goes_to_whoever_waited_longest() -> None:
    lock, order = FairLock(), []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    lock.acquire()
    assert lock.is_held_here
    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for waiting, thread in enumerate(threads, 1):
        thread.start()
        while lock.num_waiting < waiting:
            time.sleep(0.001)
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(6))
    assert not lock.is_held_here


def test_a_cancelled_wait_gives_its_place_up() -> None:
    lock, token, raised = FairLock(), CancelToken(), []

    def wait() -> None:
        try:
            lock.acquire(token)
        except Cancelled as error:
            raised.append(error)

    lock.acquire()
    thread = threading.Thread(target=wait)
    thread.start()
    while not lock.num_waiting:
        time.sleep(0.001)
    token.cancel()
    thread.join()
    assert (len(raised), lock.num_waiting) == (1, 0)
    lock.release()
    with lock:
        assert lock.is_held_here


@pytest.fixture(scope="module")
def slow_graph(tmp_path_factory) -> Path:
    """`y = x · x · ...`, 150 products of 512 x 512, about a second on one core."""
    nodes, last = [], "x"
    for index in range(150):
        nodes.append(helper.make_node("MatMul", [last, "x"], [f"y{index}"]))
        last = f"y{index}"
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (512, 512))],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, (512, 512))],
    )
    path = tmp_path_factory.mktemp("slow") / "slow.onnx"
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.parametrize("bound", [False, True], ids=["run", "run_with_iobinding"])
def test_a_run_of_onnx_runtime_stops_at_its_next_node(slow_graph, bound) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        slow_graph, session_options(EngineOptions(1)), providers=["CPUExecutionProvider"]
    )
    x = np.zeros((512, 512), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output(session.get_outputs()[0].name)

    def run(token: CancelToken | None) -> None:
        with stoppable(token, "slow does not run") as options:
            if bound:
                session.run_with_iobinding(binding, options)
            else:
                session.run(None, {"x": x}, options)

    started = time.perf_counter()
    run(None)
    whole = time.perf_counter() - started
    delays = [seconds_until_stopped(run, whole / 10) for _ in range(5)]
    assert min(delays) < MOST_SECONDS  # of five, because other programs may have the cores
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled, match="cancelled by its caller"):
        run(token)
    run(None)


def test_an_error_of_a_run_that_nobody_cancelled_stays_an_engine_error() -> None:
    with (
        pytest.raises(EngineError, match="x does not run in onnxruntime: broken"),
        stoppable(CancelToken(), "x does not run"),
    ):
        raise RuntimeError("broken")

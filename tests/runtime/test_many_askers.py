"""Several threads watch, ask and cancel at once, and every answer is that of a serial question."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hicom_edge import VideoQA
from hicom_edge.engines.cancel import CancelToken
from hicom_edge.errors import Cancelled, InputError
from hicom_edge.shapes.held_out import write_held_out

CPU = "onnxruntime-cpu"
THREADS, QUESTIONS = 8, 240


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    """Videos, each with a question."""
    directory = tmp_path_factory.mktemp("clips")
    return [(directory / item.video, item.question) for item in write_held_out(directory, 40)]


@pytest.fixture(scope="module")
def qa():
    with VideoQA.load(engine=CPU, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def expected(qa: VideoQA, asked) -> list[tuple[int, ...]]:
    return [qa.ask(qa.watch(video), question).token_ids for video, question in asked]


@pytest.mark.slow
def test_answers_of_many_threads_equal_the_serial_ones(asked, expected) -> None:
    """Some questions are cancelled at a random moment; the others do not notice."""
    before = threading.active_count()
    numbers = random.Random(0)
    work = [(numbers.randrange(len(asked)), numbers.random() < 0.25) for _ in range(QUESTIONS)]
    delays = [numbers.random() * 0.03 for _ in work]

    def ask(number: int) -> bool | None:
        index, is_cancelled = work[number]
        video, question = asked[index]
        cancel = CancelToken()
        timer = threading.Timer(delays[number], cancel.cancel)
        if is_cancelled:
            timer.start()
        try:
            answer = qa.ask(qa.watch(video, cancel=cancel), question, cancel=cancel)
        except Cancelled:
            assert is_cancelled
            return None
        finally:
            timer.cancel()
        return answer.token_ids == expected[index]

    with VideoQA.load(engine=CPU, threads=1) as qa, ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(ask, range(QUESTIONS)))
    assert False not in found
    assert found.count(True) >= QUESTIONS / 2
    assert None in found
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.01)
    assert threading.active_count() == before


def test_questions_asked_together_are_answered_in_their_order(qa, asked, expected) -> None:
    answers = qa.ask_many([(qa.watch(video), question) for video, question in asked])
    assert [answer.token_ids for answer in answers] == expected
    assert qa.ask_many([]) == []


def test_a_batch_of_the_decoder_changes_no_answer(asked, expected, monkeypatch) -> None:
    """Steps of several sequences go through `step_batch`, also where it runs them one by one."""
    sizes = []
    with VideoQA.load(engine=CPU, threads=1) as qa:
        decoder = qa._stages.engines.decoder
        step_batch = decoder.step_batch

        def counted(steps, cancel):
            sizes.append(len(steps))
            return step_batch(steps, cancel)

        monkeypatch.setattr(decoder, "max_batch", 3)
        monkeypatch.setattr(decoder, "step_batch", counted)
        answers = qa.ask_many([(qa.watch(video), question) for video, question in asked[:10]])
        assert [answer.token_ids for answer in answers] == expected[:10]
        assert all(answer.timings.generate_ms > 0 for answer in answers)
        assert [a.text for a in answers] == [qa.ask(qa.watch(v), q).text for v, q in asked[:10]]
    assert max(sizes) == 3


def test_a_video_that_several_threads_watch_is_encoded_once(asked, monkeypatch) -> None:
    with VideoQA.load(engine=CPU, threads=1) as qa, ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(qa.watch, [asked[0][0]] * 4))
        assert len({id(clip.maps) for clip in clips}) == 1
        assert sorted(clip.vision_reused for clip in clips) == [False, True, True, True]


@pytest.mark.parametrize(("stop", "error"), [("cancel", Cancelled), ("close", InputError)])
def test_a_stream_that_another_thread_stops_has_no_answer(qa, asked, stop, error) -> None:
    video, question = asked[0]
    stream = qa.stream(qa.watch(video), question)
    next(stream)
    thread = threading.Thread(target=getattr(stream, stop))
    thread.start()
    thread.join()
    with pytest.raises(error):
        _ = stream.answer


def test_a_token_cancels_only_the_calls_it_was_passed_to(qa, asked, expected) -> None:
    video, question = asked[0]
    cancel, clip = CancelToken(), qa.watch(video)
    first = qa.stream(clip, question, cancel=cancel)
    second = qa.stream(clip, question, cancel=cancel)
    first.cancel()
    with pytest.raises(Cancelled):
        _ = first.answer
    assert second.answer.token_ids == expected[0]
    cancel.cancel()
    with pytest.raises(Cancelled):
        qa.ask(clip, question, cancel=cancel)
    with pytest.raises(Cancelled):
        qa.watch(asked[1][0], num_frames=3, cancel=cancel)
    with pytest.raises(Cancelled):
        qa.ask_many([(clip, question)], cancel=cancel)
    assert qa.ask(clip, question).token_ids == expected[0]


def test_a_closed_video_qa_says_so(asked) -> None:
    video, question = asked[0]
    qa = VideoQA.load(engine=CPU)
    clip = qa.watch(video)
    stream, conversation = qa.stream(clip, question, max_new_tokens=3), qa.conversation(clip)
    next(stream)
    qa.close()
    qa.close()
    assert "closed" in repr(qa)
    calls = (
        lambda: qa.watch(video),
        lambda: qa.ask(clip, question),
        lambda: qa.ask_many([(clip, question)]),
        lambda: qa.conversation(clip),
        lambda: conversation.ask(question),
        lambda: list(stream),
    )
    for call in calls:
        with pytest.raises(InputError, match="this VideoQA is closed; load the bundle again"):
            call()


def test_closing_stops_what_runs_in_other_threads(asked) -> None:
    qa = VideoQA.load(engine=CPU, threads=1)
    clip, question = qa.watch(asked[0][0]), asked[0][1]
    raised, is_running = [], threading.Event()

    def ask_on() -> None:
        try:
            while True:
                qa.ask(clip, question)
                is_running.set()
        except InputError as error:
            raised.append(str(error))

    thread = threading.Thread(target=ask_on)
    thread.start()
    is_running.wait()
    qa.close()
    thread.join(timeout=10)
    assert raised == ["this VideoQA is closed; load the bundle again"]


def test_what_is_returned_introduces_itself(qa, asked) -> None:
    video, question = asked[0]
    clip = qa.watch(video)
    assert repr(clip).startswith(f"<Clip: {clip.num_frames} frames of {video}, 0.1 to ")
    answer = qa.ask(clip, question)
    assert repr(answer).startswith(f"<Answer: {answer.text!r}, {len(answer.token_ids)} tokens, ")
    array = qa.watch(np.zeros((1, 8, 8, 3), np.uint8))
    assert repr(array) == "<Clip: 1 frame of an array (1, 8, 8, 3)>"
    assert repr(qa).startswith("<VideoQA: ")


@pytest.mark.parametrize("asked", ["abc", [("one",)], [3]])
def test_what_is_not_a_list_of_pairs_is_refused(qa: VideoQA, asked: object) -> None:
    with pytest.raises(InputError, match="pass a list of pairs, each a clip and a question"):
        qa.ask_many(asked)  # type: ignore[arg-type]

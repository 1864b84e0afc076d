"""Work in several processes: counted, stopped at once, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from hicom_edge.errors import ResourceError
from hicom_edge.training import corpus
from hicom_edge.training.clip_processes import Tick, run_in_processes

CLIPS = 1000
DRAW = f"""
import sys
from pathlib import Path
from hicom_edge.training.corpus import Corpus

def report(done):
    print(done, flush=True)

if __name__ == "__main__":
    Corpus(Path(sys.argv[1]), 0, {CLIPS}, 84, 6, 8).prepare(report, processes=2)
"""


def write_and_tick(directory: Path, item: int, tick: Tick) -> None:
    for unit in range(3):
        (directory / f"{item}-{unit}").touch()
        tick()


def fail_on_two(item: int, tick: Tick) -> None:
    if item == 2:
        raise OSError(28, "No space left on device", "frames.npy")
    tick()


def die(_item: int, _tick: Tick) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tick_and_sleep(_item: int, tick: Tick) -> None:
    tick()
    time.sleep(600)


def test_every_item_is_done_once_and_every_unit_counted(tmp_path: Path) -> None:
    ticks = []
    run_in_processes(partial(write_and_tick, tmp_path), range(5), 2, lambda: ticks.append(1))
    assert len(ticks) == 15
    assert len(list(tmp_path.iterdir())) == 15


def test_an_error_of_a_process_is_raised_here() -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        run_in_processes(fail_on_two, range(4), 2, lambda: None)
    assert caught.value.filename == "frames.npy"


def test_a_process_that_was_killed_is_an_error() -> None:
    with pytest.raises(ResourceError, match=r"ended with exit code -9, expected 0; free some mem"):
        run_in_processes(die, [0], 1, lambda: None)


def test_an_exception_while_counting_ends_all_processes() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_in_processes(tick_and_sleep, range(4), 2, stop)
    assert time.monotonic() - started < 20, "it waited for the work"


@pytest.mark.parametrize("to_group", [True, False], ids=["Ctrl-C", "main process alone"])
@pytest.mark.parametrize("clips_done", [0, 3])
def test_drawing_clips_ends_at_once_when_interrupted(
    tmp_path: Path, to_group: bool, clips_done: int
) -> None:
    """A terminal sends Ctrl-C to all processes of the group; `kill -INT` to one."""
    script = tmp_path / "draw.py"
    script.write_text(DRAW)
    command = [sys.executable, str(script), str(tmp_path / "clips")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < clips_done:
            pass
        (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
        interrupted = time.monotonic()
        _, errors = process.communicate(timeout=60)
    assert time.monotonic() - interrupted < 2
    assert errors.count("Traceback") == 1, errors  # the main process's alone
    assert errors.rstrip().endswith("KeyboardInterrupt")
    while processes_of(process.pid):  # multiprocessing's own helper ends a little later
        assert time.monotonic() - interrupted < 2, "processes are left"


@pytest.mark.slow
def test_the_command_ends_within_two_seconds_of_ctrl_c_while_it_draws(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hicom_edge", "train", "demo", "-o", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        while not (tmp_path / "run" / "towers" / "clips").is_dir():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1)  # the processes have started
        os.killpg(process.pid, signal.SIGINT)
        interrupted = time.monotonic()
        _, errors = process.communicate(timeout=60)
    assert time.monotonic() - interrupted < 2
    assert (process.returncode, errors) == (130, b"")


def test_an_interrupted_corpus_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "CHUNK", 4)
    clips = corpus.Corpus(tmp_path / "clips", 0, 7, 28, 2, 4)

    def stop_in_the_second_chunk(done: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clips.prepare(stop_in_the_second_chunk, processes=1)
    seen: list[int] = []
    clips.prepare(seen.append, processes=1)
    assert seen == [4, 5, 6, 7]
    assert clips.frames(6).shape == (4, 28, 28, 3)


def processes_of(session: int) -> list[int]:
    """Ids of the running processes of a session."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            state = (directory / "stat").read_text().rpartition(")")[2].split()
            if int(state[3]) == session and state[0] != "Z":
                found.append(int(directory.name))
    return found

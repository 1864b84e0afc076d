"""Files and folders are replaced whole, locks exclude, and refusals of the system are explained."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hicom_edge import files
from hicom_edge.errors import BundleError, InputError, ResourceError
from hicom_edge.files import (
    FileLock,
    Replacement,
    explained_write_errors,
    os_error_in_words,
    read_cache,
    replace_file,
    replacing,
    write_cache,
)

WORDS = ("old", "new")


@pytest.fixture(params=["exchange", "two renames"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> Path:
    """A folder holding "old", on systems that can exchange two folders and on others."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    path = tmp_path / "folder"
    write_folder(path, "old")
    return path


def write_folder(path: Path, word: str) -> None:
    with replacing(path) as new:
        new.mkdir()
        for name in ("first", "second"):
            (new / name).write_text(word)


def words_of(path: Path) -> set[str]:
    return {(path / name).read_text() for name in ("first", "second")}


def test_a_file_is_created_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.json"
    replace_file(target, "ä")
    replace_file(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["file.json"]


def test_a_folder_is_replaced(folder: Path) -> None:
    (folder / "third").write_text("")
    write_folder(folder, "new")
    assert words_of(folder) == {"new"}
    assert not (folder / "third").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_a_failure_leaves_the_old_content(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(folder) as new:
        new.mkdir()
        raise ZeroDivisionError
    assert words_of(folder) == {"old"}
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_an_interrupt_between_two_renames_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "folder", Path.rename
    write_folder(folder, "old")

    def interrupted(path: Path, target: Path) -> Path:
        if path.parent.name.startswith(".folder.partial-") and path.name == "folder":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, "new")
    assert words_of(folder) == {"old"}
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_a_folder_is_never_missing_while_it_is_replaced(tmp_path: Path) -> None:
    folder, stop = tmp_path / "folder", threading.Event()
    write_folder(folder, "old")
    if not _exchanges(tmp_path):
        pytest.skip("this file system cannot exchange two folders")

    def replace() -> None:
        while not stop.is_set():
            write_folder(folder, "new")

    writer = threading.Thread(target=replace)
    writer.start()
    missing = sum(not folder.is_dir() for _ in range(3000))
    stop.set()
    writer.join()
    assert missing == 0


def _exchanges(directory: Path) -> bool:
    one, other = directory / "one", directory / "other"
    one.mkdir()
    other.mkdir()
    return files._exchange(one, other)


WRITER = """
import sys
from pathlib import Path
from hicom_edge import files
if sys.argv[2] == "two renames":
    files._exchange = lambda one, other: False
print(flush=True)
while True:
    for word in ("old", "new"):
        with files.replacing(Path(sys.argv[1]) / "folder", durable=False) as new:
            new.mkdir()
            for name in ("first", "second"):
                (new / name).write_text(word)
        files.replace_file(Path(sys.argv[1]) / "file", word * 100_000, durable=False)
"""


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path, way: str) -> None:
    for delay_ms in (1, 3, 7, 12, 20, 31):
        kill_a_writer(tmp_path, way, delay_ms)
        with Replacement(tmp_path / "folder"), Replacement(tmp_path / "file"):
            pass  # the next run cleans up
        names = {path.name for path in tmp_path.iterdir()}
        assert names <= {"folder", "file"}
        assert "folder" not in names or words_of(tmp_path / "folder") in ({"old"}, {"new"})
        file = tmp_path / "file"
        assert not file.exists() or file.read_text() in [word * 100_000 for word in WORDS]
    assert words_of(tmp_path / "folder") in ({"old"}, {"new"})


def kill_a_writer(directory: Path, way: str, delay_ms: int) -> None:
    command = [sys.executable, "-c", WRITER, str(directory), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay_ms / 1000)
        writer.send_signal(signal.SIGKILL)


def test_what_a_running_process_writes_is_left_alone(tmp_path: Path) -> None:
    with Replacement(tmp_path / "file") as first, Replacement(tmp_path / "file") as second:
        assert first.path != second.path
        first.path.write_text("first")
        second.path.write_text("second")
        first.publish()
        second.publish()
    assert (tmp_path / "file").read_text() == "second"


def test_temporary_names_cannot_be_guessed_and_follow_the_target(tmp_path: Path) -> None:
    names = set()
    for _ in range(5):
        with Replacement(tmp_path / "frames.npy") as new:
            names.add(new.path.parent.name)
            assert new.path.name == "frames.npy"
            assert new.path.parent.stat().st_mode & 0o777 == 0o700
    assert len(names) == 5


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "file", "")
        write_folder(tmp_path / "folder", "")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    replace_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_a_lock_is_exclusive_and_ends_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path, create=True) as lock:
        assert lock.is_held
        with pytest.raises(BlockingIOError), FileLock(path):
            pass
    with FileLock(path) as lock:
        assert lock.is_held
    assert not lock.is_held


def test_work_goes_on_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch) -> None:
    def refusing(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refusing)
    (tmp_path / ".file.partial-other").mkdir()
    replace_file(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / ".file.partial-other").exists()  # its writer may be alive


def test_a_cache_that_cannot_be_written_or_read_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_cache(tmp_path / "file" / "cache", b"x")
    assert read_cache(tmp_path / "file" / "cache") == b""
    write_cache(tmp_path / "cache", b"four")
    assert read_cache(tmp_path / "cache") == b"four"
    assert read_cache(tmp_path / "cache", most_bytes=3) == b""


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (errno.ENOSPC, ResourceError, r"^the disk of here is full \(No space left.*\); free some$"),
        (errno.EDQUOT, ResourceError, r"^the disk of here is full \(.*quota.*\); free some$"),
        (errno.EFBIG, ResourceError, r"^the disk of here takes no file that large \(.*\); free"),
        (errno.EMFILE, ResourceError, r"^too many files are open \(.*\); close .* \(ulimit -n\)$"),
        (errno.EACCES, BundleError, r"^here cannot be written \(Permission denied\); move it$"),
        (errno.EROFS, BundleError, r"^here cannot be written \(Read-only file.*\); move it$"),
    ],
)
def test_refusals_are_one_line(error: int, raised: type[Exception], message: str) -> None:
    with (
        pytest.raises(raised, match=message),
        explained_write_errors("here", "free some", "move it", BundleError),
    ):
        raise OSError(error, os.strerror(error))


@pytest.mark.parametrize(
    "words",
    [
        "9 requested and 4 written",
        "Not enough free space to write 24000000 bytes after offset 128",  # of 16 MiB or more
    ],
)
def test_numpys_words_for_a_full_disk_are_known(words: str) -> None:
    with (
        pytest.raises(ResourceError, match=rf"^the disk of here is full \({words}\); free some$"),
        explained_write_errors("here", "free some"),
    ):
        raise OSError(words)


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), explained_write_errors(tmp_path, ""):
        (tmp_path / "none").read_text()
    unreadable = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/file")
    with pytest.raises(PermissionError), explained_write_errors(tmp_path, ""):
        raise unreadable
    inside = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be written"), explained_write_errors(tmp_path, ""):
        raise inside


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "Full", "/a"), "/a: the disk is full (Full); free some space or "),
        (OSError(errno.EMFILE, "Many"), "too many files are open (Many); close other programs or"),
        (OSError(errno.ENOENT, "Missing", "/a"), "/a: Missing; check the path, its permissions "),
        (OSError("9 requested and 4 written"), "the disk is full (9 requested and 4 written); fr"),
    ],
)
def test_any_system_error_has_words(error: OSError, words: str) -> None:
    assert (os_error_in_words(error) or "").startswith(words)


def test_an_error_that_is_not_the_systems_has_no_words() -> None:
    assert os_error_in_words(OSError("what a library says")) is None

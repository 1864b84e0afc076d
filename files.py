"""Whole replacement of files and folders, file locks, and system errors in plain words.

New content is written into a hidden temporary folder beside its target and renamed into place, so
that a process killed at any moment leaves the old content or the new. The temporary folder is
locked while its process lives; the next replacement of the same target removes those whose process
is gone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hicom_edge.errors import HicomEdgeError, InputError, ResourceError

if TYPE_CHECKING:
    from typing_extensions import Self

    PathLike = str | os.PathLike[str]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_FULL = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full",
    errno.EFBIG: "takes no file that large",
}
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class FileLock:
    """An exclusive advisory lock on a file or folder, which ends with the process in any case.

    Where the file system has no locks, `is_held` stays False and work goes on without one.
    """

    def __init__(self, path: PathLike, *, create: bool = False) -> None:
        self._path, self._create = Path(path), create
        self._descriptor: int | None = None
        self.is_held = False

    def acquire(self) -> Self:
        """Take the lock without waiting.

        Raises:
            BlockingIOError: another process holds it.
            OSError: the path cannot be opened.
        """
        import fcntl

        flags = os.O_RDWR | os.O_CREAT if self._create else os.O_RDONLY
        self._descriptor = os.open(self._path, flags, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_held = True
        except BlockingIOError:
            self.release()
            raise
        except OSError:  # a file system without locks
            pass
        return self

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        self.is_held = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def locks_what_is_at_its_path(self) -> bool:
        """Whether the path still names the file or folder that was opened."""
        assert self._descriptor is not None
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        return False

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Replacement:
    """New content for a file or folder, written to `path` and put in place by `publish`.

    Use as a context manager: leaving it without `publish` removes what was written. The target's
    parent folder is created. A target that is a symbolic link stays one: what it points to is
    replaced. Modes follow the umask.

    Args:
        target: the file or folder to create or replace.
        durable: flush the content to the disk before it takes its place, so that it also survives
            a crash of the whole machine. Caches do without.

    Attributes:
        path: where to write; has the target's name, so that suffixes are kept. Nothing exists
            there yet.
    """

    def __init__(self, target: PathLike, *, durable: bool = True) -> None:
        self.target = Path(target).resolve()
        self.path = self.target
        self._durable = durable

    def __enter__(self) -> Self:
        import tempfile

        parent = self.target.parent
        parent.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        while True:
            folder = Path(tempfile.mkdtemp(prefix=self._prefix(), dir=parent))
            self._lock = FileLock(folder)
            # Another process may have taken the new folder, not locked yet, for a leftover.
            with suppress(BlockingIOError, FileNotFoundError):
                self._lock.acquire()
                if self._lock.locks_what_is_at_its_path():
                    break
            self._lock.release()
        self._folder, self.path = folder, folder / self.target.name
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _put_back(self._folder, self.target)
        _remove(self._folder)
        self._lock.release()

    def publish(self) -> None:
        """Put what was written in the target's place; what was there before is removed."""
        if self._durable:
            _flush(self.path)
        if self.path.is_dir() and self.target.exists():
            if not _exchange(self.path, self.target):
                self.target.rename(_aside(self._folder, self.target))
                self.path.rename(self.target)
        else:
            self.path.replace(self.target)
        if self._durable:
            _flush_entry(self.target.parent)

    def _prefix(self) -> str:
        return f".{self.target.name}.partial-"

    def _remove_leftovers(self) -> None:
        """Remove what killed processes left, or put back what they had moved aside."""
        import glob

        for folder in self.target.parent.glob(f"{glob.escape(self._prefix())}*"):
            with suppress(OSError), FileLock(folder) as lock:
                if lock.is_held:
                    _put_back(folder, self.target)
                    _remove(folder)


@contextmanager
def replacing(target: PathLike, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path to write a file or folder at, which replaces the target if all goes well."""
    with Replacement(target, durable=durable) as replacement:
        yield replacement.path
        replacement.publish()


def replace_file(target: PathLike, content: bytes | str, *, durable: bool = True) -> None:
    """Create or replace a file; text is written as UTF-8."""
    with replacing(target, durable=durable) as path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_cache(target: PathLike, content: bytes | str) -> None:
    """Create or replace a file that only saves time; errors of the file system are ignored."""
    with suppress(OSError):
        replace_file(target, content, durable=False)


def read_cache(path: PathLike, most_bytes: int | None = None) -> bytes:
    """Content of a file that only saves time; empty if missing, unreadable or too large."""
    try:
        too_large = most_bytes is not None and Path(path).stat().st_size > most_bytes
        return b"" if too_large else Path(path).read_bytes()
    except OSError:
        return b""


@contextmanager
def explained_write_errors(
    place: PathLike,
    if_full: str,
    if_refused: str = "make it writable, or write elsewhere",
    refused: type[HicomEdgeError] = InputError,
) -> Iterator[None]:
    """Turn the system's refusals to write into one line; other errors pass unchanged.

    Args:
        place: the file or folder being written, for the message. Refusals to open other files
            pass unchanged.
        if_full: what to do when the disk is full.
        if_refused: what to do when writing is not permitted.
        refused: the error to raise when writing is not permitted.

    Raises:
        ResourceError: the disk is full, or too many files are open.
    """
    try:
        yield
    except OSError as error:
        explained = _explained(error, Path(place), if_full, if_refused, refused)
        if explained is None:
            raise
        raise explained from error


def _explained(
    error: OSError,
    place: Path,
    if_full: str,
    if_refused: str,
    refused: type[HicomEdgeError],
) -> HicomEdgeError | None:
    if (full := disk_full(error)) is not None:
        return ResourceError(f"the disk of {place} {full}; {if_full}")
    if error.errno in _TOO_MANY_FILES:
        return ResourceError(too_many_files(error))
    if error.errno in _REFUSED and _lies_in(error.filename, place):
        return refused(f"{place} cannot be written ({error.strerror}); {if_refused}")
    return None


def _lies_in(filename: Any, place: Path) -> bool:
    """Whether an error's file, if it names one, is in the place that is being written."""
    if not isinstance(filename, str | bytes | os.PathLike):
        return True
    return Path(os.fsdecode(filename)).absolute().is_relative_to(place.absolute())


def disk_full(error: OSError) -> str | None:
    """The refusal of a full disk in words, such as "is full (No space left on device)"."""
    if error.errno in _FULL:
        return f"{_FULL[error.errno]} ({error.strerror})"
    return f"is full ({error})" if _numpy_says_disk_full(error) else None


def too_many_files(error: OSError) -> str:
    """What to do when no further file can be opened."""
    return (
        f"too many files are open ({error.strerror}); close other programs or raise the limit "
        "(ulimit -n)"
    )


def os_error_in_words(error: OSError) -> str | None:
    """One line about any error of the system; None if the error is not the system's."""
    if error.errno in _TOO_MANY_FILES:
        return too_many_files(error)
    where = f"{error.filename}: " if error.filename else ""
    if (full := disk_full(error)) is not None:
        return f"{where}the disk {full}; free some space or write to another disk"
    if error.strerror is None:
        return None
    return f"{where}{error.strerror}; check the path, its permissions and the free space"


def _numpy_says_disk_full(error: OSError) -> bool:
    """NumPy writes arrays with C's functions and reports byte counts without an error number."""
    import re

    text = str(error)
    cut_short = re.fullmatch(r"\d+ requested and \d+ written", text) is not None
    return error.errno is None and (cut_short or text.startswith("Not enough free space to write "))


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step (Linux: renameat2); False where the system cannot."""
    import ctypes

    renameat2: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    paths = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # the kernel or the file system
        return False
    raise OSError(number, os.strerror(number), str(other))


def _aside(folder: Path, target: Path) -> Path:
    """Where the old content waits between the two renames of a system without exchange."""
    return folder / f"{target.name}.old"


def _put_back(folder: Path, target: Path) -> None:
    old = _aside(folder, target)
    if old.exists() and not target.exists():  # stopped between the two renames
        old.rename(target)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    """Flush a file, or all files and folders under a folder, to the disk."""
    if path.is_dir():
        for inner in path.rglob("*"):
            _flush_entry(inner)
    _flush_entry(path)


def _flush_entry(path: Path) -> None:
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every system flushes folders
            raise
    finally:
        os.close(descriptor)

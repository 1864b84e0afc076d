"""The directory that keeps the finished steps of a calibration, so that a run can be continued.

Steps are saved by name as JSON, arrays or lines. Every write is atomic; a truncated last line is
dropped. A directory that was made from other inputs is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import InputError, ResourceError

if TYPE_CHECKING:
    from typing_extensions import Self

    from hicom_edge.bundle import Bundle


Arrays: TypeAlias = "Mapping[str, NDArray[Any]]"

FORMAT_VERSION = 1
_KEY, _LOCK_FILE, _META = "key", "lock", "__meta__"


@dataclass(frozen=True)
class RunKey:
    """For what the steps were made: fingerprints of the bundle, the data and the options."""

    bundle: str
    data: str
    options: str


def bundle_fingerprint(bundle: Bundle) -> str:
    """Equal only for bundles with the same graphs, weights, tokenizers and frames."""
    return hashlib.sha256(bundle.manifest.to_json().encode()).hexdigest()


class RunDirectory:
    """Steps of one run, in `.<output name>.calibration` beside the output.

    Use as a context manager: one process at a time works in it. Leaving keeps what is there;
    `remove` throws it away once the output is whole.
    """

    def __init__(self, output: Path, key: RunKey, restart: bool = False) -> None:
        self.path = output.resolve().with_name(f".{output.resolve().name}.calibration")
        self._key, self._restart = key, restart
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Raises InputError when it is in use, or was made for something else."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be made ({error.strerror}); write the bundle elsewhere"
            ) from error
        self._take_lock()
        try:
            if self._restart:
                self._empty()
            self._check_key()
        except BaseException:
            self._release_lock()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release_lock()

    def load_json(self, step: str) -> Any | None:
        """What was saved as JSON; None where nothing was, or where it is damaged."""
        try:
            return json.loads((self.path / f"{step}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def save_json(self, step: str, data: Any) -> None:
        """Replace a step's JSON."""
        text = json.dumps(data, ensure_ascii=False)
        self._write(f"{step}.json", lambda path: path.write_text(text, encoding="utf-8"))

    def load_arrays(self, step: str) -> tuple[dict[str, NDArray[Any]], Any] | None:
        """The arrays and the JSON that were saved together; None as for `load_json`."""
        try:
            with np.load(self.path / f"{step}.npz", allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return arrays, json.loads(arrays.pop(_META).tobytes())
        except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return None  # a crash of the whole machine can leave a file without its content

    def save_arrays(self, step: str, arrays: Arrays, meta: Any = None) -> None:
        """Replace a step's arrays and the JSON that belongs to them, both or neither."""
        text = np.frombuffer(json.dumps(meta, ensure_ascii=False).encode(), np.uint8)
        content: dict[str, Any] = {**arrays, _META: text}

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, **content)

        self._write(f"{step}.npz", write)

    def kept_arrays(self, step: str, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of a step: as they were saved, or computed and saved now."""
        saved = self.load_arrays(step)
        if saved is not None:
            return saved[0]
        arrays = compute()
        self.save_arrays(step, arrays)
        return arrays

    def append(self, step: str, record: Any) -> None:
        """Add one record to a step that is done line by line."""
        path = self.path / f"{step}.jsonl"
        _drop_cut_line(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records(self, step: str) -> list[Any]:
        """The whole records of a step, in order."""
        path = self.path / f"{step}.jsonl"
        _drop_cut_line(path)
        if not path.is_file():
            return []
        return whole_records(path.read_text(encoding="utf-8", errors="replace"))

    def subdirectory(self, step: str, *, empty: bool = False) -> Path:
        """A directory for a step that keeps files of its own; `empty`: of a killed run, too."""
        path = self.path / step
        if empty and path.exists():
            shutil.rmtree(path)
        path.mkdir(exist_ok=True)
        return path

    def remove(self) -> None:
        """Throw everything away."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        partial = self.path / f".{name}.partial"
        try:
            write(partial)
            partial.replace(self.path / name)
        except OSError as error:
            raise ResourceError(
                f"{self.path / name} cannot be written ({error.strerror}); free disk space"
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def _take_lock(self) -> None:
        self._lock = os.open(self.path / _LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._release_lock()
            raise InputError(
                f"{self.path} is in use by another calibration; wait for it, or write the bundle "
                "elsewhere"
            ) from error

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_key(self) -> None:
        made_by = {"format_version": FORMAT_VERSION, "program": _program()}
        expected = made_by | asdict(self._key)
        found = self.load_json(_KEY)
        if found is None and not (self.path / f"{_KEY}.json").exists():
            self._empty()  # steps without a key say nothing about what they are of
            self.save_json(_KEY, expected)
            return
        known = found if isinstance(found, dict) else {}
        differ = [name for name, value in expected.items() if known.get(name) != value]
        if differ:
            found_program = {"program": f"program ({known.get('program', 'an older one')})"}
            named = " and ".join(found_program.get(name, name) for name in differ)
            raise InputError(
                f"{self.path} is an unfinished run with another {named}; finish it "
                "with what it was started with, or throw it away with --restart"
            )

    def _empty(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK_FILE:
                path.unlink()


def _program() -> str:
    """What computes: another version may find other numbers for the same key."""
    return ", ".join(f"{name} {number}" for name, number in installed_versions(COMPUTING).items())


def whole_records(text: str) -> list[Any]:
    """The lines of JSON, without those that a crash of the whole machine has left damaged."""
    found = []
    # Not splitlines(): answers may hold other line separators, which JSON does not escape.
    for line in text.split("\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _drop_cut_line(path: Path) -> None:
    """Remove what follows the last newline: a line whose writing was interrupted."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


COMPUTING = ("hicom-edge", "onnxruntime", "onnxruntime-gpu")
"""Another version of these may find other numbers from the same data."""
PACKAGES = (*COMPUTING, "numpy", "onnx", "onnx-ir")


def installed_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The version of each of these packages that is installed, by name."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

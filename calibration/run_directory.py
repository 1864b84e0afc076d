"""The directory that keeps the finished steps of a calibration, so that a run can be continued.

Steps are saved by name as JSON, arrays or lines. Every write is atomic; a truncated last line is
dropped. A directory that was made from other inputs is refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import InputError, ResourceError
from hicom_edge.files import FileLock, replacing

if TYPE_CHECKING:
    from typing_extensions import Self

    from hicom_edge.bundle import Bundle

Arrays: TypeAlias = "Mapping[str, NDArray[Any]]"

FORMAT_VERSION = 1
COMPUTING_PACKAGES = ("hicom-edge", "onnxruntime", "onnxruntime-gpu")
"""Packages whose version may change the computed numbers."""
PACKAGES = (*COMPUTING_PACKAGES, "numpy", "onnx", "onnx-ir")

_KEY, _LOCK_FILE, _META = "key", "lock", "__meta__"


@dataclass(frozen=True)
class RunKey:
    """Fingerprints of the inputs of a run: the bundle, the data and the options."""

    bundle: str
    data: str
    options: str


def bundle_fingerprint(bundle: Bundle) -> str:
    """Equal only for bundles with the same graphs, weights, tokenizers and frame settings."""
    return hashlib.sha256(bundle.manifest.to_json().encode()).hexdigest()


def installed_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions by package name, without packages that are not installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


class JsonLines:
    """A file with one JSON record per line, which is only appended to.

    A kill can truncate the last line, and a crash of the whole machine can damage any line: such
    lines are dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, record: Any) -> None:
        """Add a record."""
        self._drop_truncated_line()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def records(self) -> list[Any]:
        """All intact records, in order."""
        self._drop_truncated_line()
        if not self._path.is_file():
            return []
        return list(self._intact(self._path.read_text(encoding="utf-8", errors="replace")))

    @staticmethod
    def _intact(text: str) -> Iterator[Any]:
        # Not splitlines(): answers may hold other line separators, which JSON does not escape.
        for line in text.split("\n"):
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def _drop_truncated_line(self) -> None:
        """Cut the file after its last newline, so that appending starts a new line."""
        if not self._path.is_file():
            return
        with self._path.open("r+b") as file:
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)


class RunDirectory:
    """Steps of one run, in `.<output name>.calibration` beside the output.

    Use as a context manager, which locks the directory against other processes. Leaving it keeps
    the steps; `remove` deletes them once the output is complete.
    """

    def __init__(self, output: Path, key: RunKey, restart: bool = False) -> None:
        self.path = output.resolve().with_name(f".{output.resolve().name}.calibration")
        self._key, self._restart = key, restart
        self._lock = FileLock(self.path / _LOCK_FILE, create=True)

    def __enter__(self) -> Self:
        """Raises InputError when the directory is in use or was made from other inputs."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be created ({error.strerror}); write the bundle elsewhere"
            ) from error
        try:
            self._lock.acquire()
        except BlockingIOError as error:
            raise InputError(
                f"{self.path} is in use by another calibration; wait for it, or write the bundle "
                "elsewhere"
            ) from error
        try:
            if self._restart:
                self._empty()
            self._check_key()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def load_json(self, step: str) -> Any | None:
        """The JSON of a step; None if it was not saved or is damaged."""
        try:
            return json.loads((self.path / f"{step}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def save_json(self, step: str, data: Any) -> None:
        """Replace a step's JSON."""
        with self._replacing(f"{step}.json") as path:
            path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")

    def load_arrays(self, step: str) -> tuple[dict[str, NDArray[Any]], Any] | None:
        """The arrays of a step and the JSON saved with them; None as for `load_json`."""
        try:
            with np.load(self.path / f"{step}.npz", allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return arrays, json.loads(arrays.pop(_META).tobytes())
        except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return None  # a crash of the whole machine can leave a file without its content

    def save_arrays(self, step: str, arrays: Arrays, meta: Any = None) -> None:
        """Replace a step's arrays and the JSON that belongs to them, together."""
        text = np.frombuffer(json.dumps(meta, ensure_ascii=False).encode(), np.uint8)
        content: dict[str, Any] = {**arrays, _META: text}
        with self._replacing(f"{step}.npz") as path, path.open("wb") as file:
            np.savez(file, **content)

    def kept_arrays(self, step: str, compute: Callable[[], Arrays]) -> Arrays:
        """The saved arrays of a step, or else the computed ones, which are saved."""
        saved = self.load_arrays(step)
        if saved is not None:
            return saved[0]
        arrays = compute()
        self.save_arrays(step, arrays)
        return arrays

    def append(self, step: str, record: Any) -> None:
        """Add a record to a step that is saved line by line."""
        self._lines(step).append(record)

    def records(self, step: str) -> list[Any]:
        """The intact records of a step, in order."""
        return self._lines(step).records()

    def subdirectory(self, step: str, *, empty: bool = False) -> Path:
        """A folder for a step that writes its own files; `empty` deletes those of earlier runs."""
        path = self.path / step
        if empty and path.exists():
            shutil.rmtree(path)
        path.mkdir(exist_ok=True)
        return path

    def remove(self) -> None:
        """Delete the directory."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _lines(self, step: str) -> JsonLines:
        return JsonLines(self.path / f"{step}.jsonl")

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        try:
            # Not durable: damaged steps are recomputed, and flushing every save would be slow.
            with replacing(self.path / name, durable=False) as path:
                yield path
        except OSError as error:
            raise ResourceError(
                f"{self.path / name} cannot be written ({error.strerror}); free disk space"
            ) from error

    def _check_key(self) -> None:
        expected = {"format_version": FORMAT_VERSION, "program": _program(), **asdict(self._key)}
        saved = self.load_json(_KEY)
        if saved is None and not (self.path / f"{_KEY}.json").exists():
            self._empty()  # steps without a key may be of any run
            self.save_json(_KEY, expected)
            return
        known = saved if isinstance(saved, dict) else {}
        differ = [name for name, value in expected.items() if known.get(name) != value]
        if differ:
            program = f"program ({known.get('program', 'an older one')})"
            named = " and ".join(program if name == "program" else name for name in differ)
            raise InputError(
                f"{self.path} is an unfinished run with another {named}; finish it with its "
                "original inputs, or pass restart to discard it"
            )

    def _empty(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK_FILE:
                path.unlink()


def _program() -> str:
    """The computing packages: another version may compute other numbers from the same inputs."""
    versions = installed_versions(COMPUTING_PACKAGES)
    return ", ".join(f"{name} {number}" for name, number in versions.items())

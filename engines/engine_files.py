"""Built engines in a bundle: their files, and which of them a machine can use.

    BUNDLE/engines/<engine>-<place>/<source>.json      sidecar, written last
    BUNDLE/engines/<engine>-<place>/<source>.engine    engine of a graph
    BUNDLE/engines/<engine>-<place>/llm/               engine of a language model (TensorRT-LLM)

`docs/engine_files.md` specifies them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hicom_edge.bundle import ENGINES_DIR, is_unaltered, sha256_of
from hicom_edge.engines.sidecar import LANGUAGE_MODEL, Expected, Sidecar
from hicom_edge.errors import EngineError
from hicom_edge.files import FileLock, Replacement, explained_write_errors, replace_file

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import Manifest

# Places of engines that are not for one kind of GPU.
ANY_DEVICE, AMPERE_AND_LATER = "any", "ampere-plus"


@dataclass(frozen=True)
class BuiltEngine:
    """Result of a build.

    Attributes:
        graph: name of the graph, or "llm".
        kept: it was there already, built from the same source with the same options.
        plugin: it calls the grouped-attention plugin.
    """

    graph: str
    path: Path
    size_bytes: int
    seconds: float
    kept: bool
    plugin: bool


@dataclass(frozen=True)
class EngineFiles:
    """Files of one engine.

    Attributes:
        directory: holds the engines of one library and one kind of device.
        source: name of the graph, or LANGUAGE_MODEL.
    """

    directory: Path
    source: str

    @property
    def engine(self) -> Path:
        """The file that TensorRT loads, or the directory that TensorRT-LLM loads."""
        name = self.source if self.source == LANGUAGE_MODEL else f"{self.source}.engine"
        return self.directory / name

    @property
    def sidecar(self) -> Path:
        """The description of the engine."""
        return self.directory / f"{self.source}.json"

    @property
    def log(self) -> Path:
        """Output of the last build that ran in a process of its own."""
        return self.directory / f"{self.source}.log"

    def kernels(self, place: str) -> Path:
        """Kernels that TensorRT-RTX compiled for this engine on one kind of GPU."""
        return self.directory / f"{self.source}.{place}.kernels"

    def read_sidecar(self) -> Sidecar:
        """The sidecar of a complete engine.

        Raises:
            EngineError: no engine, an incomplete one, or an unreadable sidecar.
        """
        try:
            text = self.sidecar.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"there is no engine {self.engine}") from error
        sidecar = Sidecar.from_json(text, self.sidecar)
        for name, (size, _) in sidecar.files.items():
            path = self._path(name)
            if not path.is_file() or path.stat().st_size != size:
                raise EngineError(f"{path} is not the file that its sidecar describes")
        return sidecar

    def check_content(self, sidecar: Sidecar) -> None:
        """Compare hashes; a file that has not changed since the last check is not read.

        Raises:
            EngineError: a file was altered.
        """
        for name, (_, sha256) in sidecar.files.items():
            if not is_unaltered(self._path(name), sha256):
                raise EngineError(f"{self._path(name)} was altered after it was built")

    @contextmanager
    def replacement(self) -> Iterator[Replacement]:
        """A path for a new engine, which `publish` moves into place, while no other build runs.

        Raises:
            EngineError: another build writes engines here.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.directory)  # two builds would also time kernels on the same GPU
        try:
            lock.acquire()
        except BlockingIOError as error:
            raise EngineError(
                f"another build writes engines into {self.directory}; wait until it is done, then "
                "build again"
            ) from error
        try:
            with Replacement(self.engine) as replacement:
                yield replacement
        finally:
            lock.release()

    def describe(self, built: Path) -> dict[str, tuple[int, str]]:
        """Names, sizes and hashes for the sidecar of an engine that is not yet in its place."""
        paths = sorted(p for p in built.rglob("*") if p.is_file()) if built.is_dir() else [built]
        names = (PurePosixPath(self.engine.name, p.relative_to(built).as_posix()) for p in paths)
        sizes = ((p.stat().st_size, sha256_of(p)) for p in paths)
        return {str(name): size for name, size in zip(names, sizes, strict=True)}

    def publish(self, replacement: Replacement, sidecar: Sidecar) -> None:
        """Move a finished engine into its place; it counts once the sidecar is there."""
        self.sidecar.unlink(missing_ok=True)
        for outdated in self.directory.glob(f"{self.source}.*.kernels"):
            outdated.unlink(missing_ok=True)
        replacement.publish()
        replace_file(self.sidecar, sidecar.to_json())

    def _path(self, name: str) -> Path:
        """A file of the engine; a sidecar that names others is refused."""
        path = PurePosixPath(name)
        if path.parts[:1] != (self.engine.name,) or ".." in path.parts:
            raise EngineError(f"{self.sidecar} names {name!r}, which is not part of its engine")
        return self.directory / path


def engine_directory(bundle: Bundle, engine: str, place: str) -> Path:
    """Directory of the engines of one library for one kind of device."""
    return bundle.path / ENGINES_DIR / f"{engine}-{place}"


def find_engine(bundle: Bundle, source: str, expected: Expected) -> tuple[EngineFiles, Sidecar]:
    """The engine of a source that fits: the one for this kind of GPU, or a portable one.

    Raises:
        EngineError: there is none, or only ones that do not fit; the message says how to build it.
    """
    reasons: list[str] = []
    for place in _places(expected):
        files = EngineFiles(engine_directory(bundle, expected.engine, place), source)
        try:
            sidecar = files.read_sidecar()
        except EngineError as error:
            # Of several reasons, an engine that is there and does not fit says most.
            is_there = not isinstance(error.__cause__, FileNotFoundError)
            reasons.insert(0 if is_there else len(reasons), str(error))
            continue
        difference = expected.difference(sidecar)
        if difference is None:
            return files, sidecar
        reasons.insert(0, f"{files.engine} was built from or for {difference}")
    command = f"hicom-edge build {bundle.path} --engine {expected.engine}"
    raise EngineError(f"{reasons[0]}; build it: {command}")


def engines_built(bundle: Bundle) -> tuple[str, ...]:
    """Names of the libraries, such as "tensorrt", that the bundle has graph engines for."""
    names = []
    for sidecar in sorted((bundle.path / ENGINES_DIR).glob("*/vision.json")):
        with suppress(EngineError):
            names.append(EngineFiles(sidecar.parent, "vision").read_sidecar().engine)
    return tuple(names)


def explained_disk_errors(bundle: Bundle) -> AbstractContextManager[None]:
    """Turn a full disk, or a bundle that cannot be written, into one line."""
    return explained_write_errors(
        bundle.path,
        if_full="finished engines were kept, free some space and build again",
        if_refused="engines go into the bundle: make it writable, or build in a copy of it",
        refused=EngineError,
    )


def graph_sha256(manifest: Manifest, graph: str) -> str:
    """Digest of a graph and its weights."""
    return _files_sha256(manifest, manifest.files_of(graph))


def checkpoint_sha256(manifest: Manifest, directory: str) -> str:
    """Digest of a language model's checkpoint, which is a directory of the bundle."""
    prefix = directory.rstrip("/") + "/"
    return _files_sha256(manifest, (name for name in manifest.files if name.startswith(prefix)))


def _files_sha256(manifest: Manifest, names: Iterable[str]) -> str:
    """One digest of several files of a bundle, computed from the hashes in its manifest."""
    hashes = sorted((name, manifest.files[name].sha256) for name in names)
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _places(expected: Expected) -> list[str]:
    """Places to look in, best first."""
    gpu = expected.gpu
    if gpu is None:
        return [ANY_DEVICE]
    is_ampere = gpu.compute_capability >= (8, 0)
    return [gpu.folder, AMPERE_AND_LATER, ANY_DEVICE] if is_ampere else [gpu.folder, ANY_DEVICE]

"""Built engines on disk: where they lie, and the sidecar that says what each belongs to.

    BUNDLE/engines/<engine>-<device>/<graph>.engine
    BUNDLE/engines/<engine>-<device>/<graph>.json      its sidecar, written last
    BUNDLE/engines/<engine>-<device>/<graph>.<place>.kernels   what TensorRT-RTX compiled for it

It knows names, hashes and versions. It does not know how an engine is built or run.
`docs/engine_files.md` is the specification.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicom_edge.bundle import ENGINES_DIR, is_unaltered
from hicom_edge.errors import EngineError
from hicom_edge.planning.decoder_form import weight_files
from hicom_edge.planning.profiles import Profile, ShapeRange

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import Manifest
    from hicom_edge.planning.gpus import Gpu

FORMAT_VERSION = 1
# The places of engines that are not for one kind of device.
ANY_DEVICE, AMPERE_AND_LATER = "any", "ampere-plus"


@dataclass(frozen=True)
class Sidecar:
    """What an engine was built from, with and for.

    Attributes:
        graph, graph_sha256: name and digest of the graph and its weights.
        engine, engine_version: "tensorrt" or "tensorrt-rtx", and its version.
        cuda_version: of the driver that it was built with; None without one.
        device, compute_capability: the GPU's name and such as "8.7"; None for a portable engine.
        precision: "fp32" or "fp16", as the graph is.
        plugin_sha256: of the plugin library that the engine calls; None when it calls none.
        version_compatible: runs in later versions of the same major version.
        options: what else was asked of the builder.
        profiles: input → (smallest, typical, largest) shape, for each profile.
        size, sha256: of the engine file.
    """

    format_version: int
    graph: str
    graph_sha256: str
    engine: str
    engine_version: str
    cuda_version: str | None
    device: str | None
    compute_capability: str | None
    precision: str
    plugin_sha256: str | None
    version_compatible: bool
    options: dict[str, int]
    profiles: tuple[Profile, ...]
    size: int
    sha256: str

    def to_json(self) -> str:
        """The sidecar as JSON text, a line for each key."""
        pairs = dataclasses.asdict(self).items()
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> Sidecar:
        """Read a sidecar; `where` names it in messages.

        Raises:
            EngineError: not a sidecar of this format version.
        """
        try:
            body: dict[str, Any] = json.loads(text)
            profiles = tuple(map(_profile_from_json, body.pop("profiles")))
            sidecar = cls(**body, profiles=profiles)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineError(f"{where} is not an engine's sidecar ({error})") from error
        if sidecar.format_version != FORMAT_VERSION:
            raise EngineError(
                f"{where} has format version {sidecar.format_version}, this hicom-edge reads "
                f"version {FORMAT_VERSION}"
            )
        return sidecar


@dataclass(frozen=True)
class EngineFiles:
    """The two files of one engine."""

    directory: Path
    graph: str

    @property
    def engine(self) -> Path:
        """The serialized engine."""
        return self.directory / f"{self.graph}.engine"

    @property
    def sidecar(self) -> Path:
        """What the engine belongs to."""
        return self.directory / f"{self.graph}.json"

    def kernels(self, place: str) -> Path:
        """What TensorRT-RTX compiled for this engine on one kind of device."""
        return self.directory / f"{self.graph}.{place}.kernels"

    def read_sidecar(self) -> Sidecar:
        """The sidecar of an engine that is there in full.

        Raises:
            EngineError: no engine, half of one, or an unreadable sidecar.
        """
        try:
            text = self.sidecar.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"there is no engine {self.engine}") from error
        sidecar = Sidecar.from_json(text, self.sidecar)
        if not self.engine.is_file() or self.engine.stat().st_size != sidecar.size:
            raise EngineError(f"{self.engine} is not the file that its sidecar describes")
        return sidecar

    def check_content(self, sidecar: Sidecar) -> None:
        """Compare the engine's hash; it is read through when it has changed since the last time.

        Raises:
            EngineError: the file was altered.
        """
        if not is_unaltered(self.engine, sidecar.sha256):
            raise EngineError(f"{self.engine} was altered after it was built")

    def publish(self, built: Path, sidecar: Sidecar) -> None:
        """Move a finished engine into place; until the sidecar follows, it does not count."""
        self.sidecar.unlink(missing_ok=True)
        for of_the_last in self.directory.glob(f"{self.graph}.*.kernels"):
            of_the_last.unlink(missing_ok=True)
        built.replace(self.engine)
        partial = self.sidecar.with_name(f".{self.sidecar.name}.partial-{os.getpid()}")
        partial.write_text(sidecar.to_json(), encoding="utf-8")
        partial.replace(self.sidecar)


@dataclass(frozen=True)
class Expected:
    """What an engine must have been built from, with and for, to be used here."""

    graph_sha256: str
    engine: str
    engine_version: str
    gpu: Gpu | None
    plugin_sha256: str | None = None

    def difference(self, sidecar: Sidecar) -> str | None:
        """The first thing in which an engine is foreign or stale, or None when it fits."""
        pairs = [
            ("another graph", sidecar.graph_sha256[:12], self.graph_sha256[:12]),
            ("another engine", sidecar.engine, self.engine),
        ]
        if sidecar.device is not None:
            model, capability = (self.gpu.model, self.gpu.capability) if self.gpu else ("none",) * 2
            pairs.append(("another device", sidecar.device, model))
            built_for = str(sidecar.compute_capability)
            pairs.append(("another compute capability", built_for, capability))
        if not _version_fits(sidecar, self.engine_version):
            pairs.append(("another version", sidecar.engine_version, self.engine_version))
        if sidecar.plugin_sha256 is not None:
            own = (self.plugin_sha256 or "none")[:12]
            pairs.append(("another plugin", sidecar.plugin_sha256[:12], own))
        return next((f"{what}: {a}, here is {b}" for what, a, b in pairs if a != b), None)


def graph_sha256(manifest: Manifest, graph_name: str) -> str:
    """One digest of a graph and the weights beside it, from the manifest's hashes."""
    files = weight_files(manifest, graph_name)
    hashes = sorted((name, manifest.files[name].sha256) for name in files)
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def engine_directory(bundle: Bundle, engine: str, place: str) -> Path:
    """Where the engines of one kind of device lie."""
    return bundle.path / ENGINES_DIR / f"{engine}-{place}"


def engines_built(bundle: Bundle) -> tuple[str, ...]:
    """The engines, such as "tensorrt", of the bundle's engine directories, of any device."""
    names = []
    for sidecar in sorted((bundle.path / ENGINES_DIR).glob("*/vision.json")):
        with contextlib.suppress(EngineError):
            names.append(EngineFiles(sidecar.parent, "vision").read_sidecar().engine)
    return tuple(names)


def _version_fits(sidecar: Sidecar, here: str) -> bool:
    if sidecar.engine_version == here:
        return True
    built_with, runs_in = _numbers(sidecar.engine_version), _numbers(here)
    return sidecar.version_compatible and built_with[:1] == runs_in[:1] and built_with <= runs_in


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _profile_from_json(body: dict[str, Any]) -> Profile:
    return {name: ShapeRange(*map(tuple, shapes)) for name, shapes in body.items()}

"""Sidecar of a built engine: what it was built from, with which versions and for which device.

`docs/engine_files.md` specifies the format, which is the same for all engines.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hicom_edge.errors import EngineError
from hicom_edge.planning.profiles import Profile, ShapeRange

if TYPE_CHECKING:
    from hicom_edge.planning.gpus import Gpu

FORMAT_VERSION = 2
LANGUAGE_MODEL = "llm"
"""Source of an engine that is built from a language model's checkpoint, not from a graph."""

OptionValue: TypeAlias = "int | str"


@dataclass(frozen=True)
class Sidecar:
    """Description of an engine.

    Attributes:
        source: name of the graph in the manifest, or LANGUAGE_MODEL.
        source_sha256: digest of the source's files.
        engine, engine_version: such as "tensorrt", and the library's version.
        cuda_version: newest CUDA version that the driver supported; None without a driver.
        device, compute_capability: kind of GPU and such as "8.7"; None if it is for several kinds.
        precision: of the source, such as "fp16".
        plugin_sha256: of the plugin library that the engine calls; None if it calls none.
        version_compatible: runs in later versions of the same major version.
        options: settings of the build; an engine that was built with others is built again.
        profiles: input → (smallest, typical, largest) shape, for each optimization profile.
        files: name relative to the sidecar → (size, sha256).
    """

    format_version: int
    source: str
    source_sha256: str
    engine: str
    engine_version: str
    cuda_version: str | None
    device: str | None
    compute_capability: str | None
    precision: str
    plugin_sha256: str | None
    version_compatible: bool
    options: dict[str, OptionValue]
    profiles: tuple[Profile, ...]
    files: dict[str, tuple[int, str]]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())

    def to_json(self) -> str:
        """The sidecar as JSON text, a line for each key."""
        pairs = dataclasses.asdict(self).items()
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, path: Path) -> Sidecar:
        """Read a sidecar; messages name it by its path.

        Raises:
            EngineError: not a sidecar of this format version.
        """
        try:
            body: dict[str, Any] = json.loads(text)
            version = body["format_version"]
            if version == FORMAT_VERSION:
                return cls(**{**body, **_typed(body)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineError(f"{path} is not an engine's sidecar ({error})") from error
        raise EngineError(
            f"{path} has format version {version}, this hicom-edge reads version {FORMAT_VERSION}"
        )


@dataclass(frozen=True)
class Expected:
    """Properties that an engine must have to be used.

    Attributes:
        engine_version: None accepts any version.
        gpu: None if the engine is finished on the machine that runs it.
        plugin_sha256: of the plugin library that is installed; None if there is none.
    """

    source_sha256: str
    engine: str
    engine_version: str | None
    gpu: Gpu | None
    plugin_sha256: str | None = None

    def difference(self, sidecar: Sidecar) -> str | None:
        """The first property in which an engine differs, or None if it can be used."""
        source = "checkpoint" if sidecar.source == LANGUAGE_MODEL else "graph"
        pairs = [
            (source, sidecar.source_sha256[:12], self.source_sha256[:12]),
            ("engine", sidecar.engine, self.engine),
        ]
        if sidecar.device is not None:
            model, capability = (self.gpu.model, self.gpu.capability) if self.gpu else ("none",) * 2
            pairs.append(("device", sidecar.device, model))
            pairs.append(("compute capability", str(sidecar.compute_capability), capability))
        if self.engine_version is not None and not _version_fits(sidecar, self.engine_version):
            pairs.append(("version", sidecar.engine_version, self.engine_version))
        if sidecar.plugin_sha256 is not None:
            plugin = (self.plugin_sha256 or "none")[:12]
            pairs.append(("plugin", sidecar.plugin_sha256[:12], plugin))
        return next((f"another {what}: {a}, here is {b}" for what, a, b in pairs if a != b), None)


def _typed(body: dict[str, Any]) -> dict[str, Any]:
    """Values that JSON has no types for."""
    profiles = tuple(
        {name: ShapeRange(*map(tuple, shapes)) for name, shapes in profile.items()}
        for profile in body["profiles"]
    )
    files = {name: (int(size), str(sha256)) for name, (size, sha256) in body["files"].items()}
    return {"profiles": profiles, "files": files}


def _version_fits(sidecar: Sidecar, version: str) -> bool:
    if sidecar.engine_version == version:
        return True
    built_with, runs_in = _numbers(sidecar.engine_version), _numbers(version)
    return sidecar.version_compatible and built_with[:1] == runs_in[:1] and built_with <= runs_in


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]

"""A built TensorRT-LLM engine on disk, and the sidecar that says what it belongs to.

    BUNDLE/engines/tensorrt-llm-<device>/llm/config.json, rank0.engine, ...
    BUNDLE/engines/tensorrt-llm-<device>/llm.json      its sidecar, written last
    BUNDLE/engines/tensorrt-llm-<device>/llm.log       what the last build said

It knows names, hashes and versions. It does not know how an engine is built or run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicom_edge.bundle import is_unaltered
from hicom_edge.engines.engine_files import engine_directory
from hicom_edge.errors import EngineError
from hicom_edge.planning.llm.limits import LlmLimits
from hicom_edge.planning.llm.versions import NAME

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import FileEntry, Manifest
    from hicom_edge.planning.gpus import Gpu

FORMAT_VERSION = 1


@dataclass(frozen=True)
class LlmSidecar:
    """What a TensorRT-LLM engine was built from, with and for.

    Attributes:
        checkpoint_sha256: digest of the checkpoint's files.
        engine_version: of TensorRT-LLM, as the engine states it.
        device, compute_capability: the GPU's name, and such as "8.7".
        limits: what it was built for.
        command: the arguments of the build, without paths.
        files: name → (size, sha256).
    """

    format_version: int
    checkpoint_sha256: str
    engine: str
    engine_version: str
    cuda_version: str | None
    device: str
    compute_capability: str
    limits: LlmLimits
    command: tuple[str, ...]
    files: dict[str, tuple[int, str]]

    def to_json(self) -> str:
        """The sidecar as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> LlmSidecar:
        """Read a sidecar; `where` names it in messages.

        Raises:
            EngineError: not a sidecar of this format version.
        """
        try:
            body: dict[str, Any] = json.loads(text)
            limits = LlmLimits(**body.pop("limits"))
            command = tuple(body.pop("command"))
            files = {name: (int(size), str(sha)) for name, (size, sha) in body.pop("files").items()}
            sidecar = cls(**body, limits=limits, command=command, files=files)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineError(f"{where} is not an engine's sidecar ({error})") from error
        if sidecar.format_version != FORMAT_VERSION:
            raise EngineError(
                f"{where} has format version {sidecar.format_version}, this hicom-edge reads "
                f"version {FORMAT_VERSION}"
            )
        return sidecar

    def belongs_to(self, checkpoint_sha256: str, gpu: Gpu) -> str | None:
        """The first thing in which the engine is foreign or stale, or None when it fits."""
        pairs = (
            ("another checkpoint", self.checkpoint_sha256[:12], checkpoint_sha256[:12]),
            ("another device", self.device, gpu.model),
            ("another compute capability", self.compute_capability, gpu.capability),
        )
        return next((f"{what}: {a}, here is {b}" for what, a, b in pairs if a != b), None)


@dataclass(frozen=True)
class LlmEngineFiles:
    """The places of one engine."""

    place: Path

    @classmethod
    def of(cls, bundle: Bundle, gpu: Gpu | None) -> LlmEngineFiles:
        """The places for a GPU; without one, a name that stands for it.

        They are absolute: the build runs in another directory.
        """
        device = "DEVICE" if gpu is None else gpu.folder
        return cls(engine_directory(bundle, NAME, device).absolute())

    @property
    def engine(self) -> Path:
        """The directory that TensorRT-LLM loads."""
        return self.place / "llm"

    @property
    def sidecar(self) -> Path:
        """What the engine belongs to."""
        return self.place / "llm.json"

    @property
    def log(self) -> Path:
        """What the last build said."""
        return self.place / "llm.log"

    def read_sidecar(self) -> LlmSidecar:
        """The sidecar of an engine that is there in full.

        Raises:
            EngineError: no engine, half of one, or an unreadable sidecar.
        """
        try:
            text = self.sidecar.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"there is no engine {self.engine}") from error
        sidecar = LlmSidecar.from_json(text, self.sidecar)
        for name, (size, _) in sidecar.files.items():
            file = self.engine / name
            if not file.is_file() or file.stat().st_size != size:
                raise EngineError(f"{file} is not the file that its sidecar describes")
        return sidecar

    def check_content(self, sidecar: LlmSidecar) -> None:
        """Compare the engine's hashes; files that changed since the last time are read through.

        Raises:
            EngineError: a file was altered.
        """
        for name, (_, sha256) in sidecar.files.items():
            if not is_unaltered(self.engine / name, sha256):
                raise EngineError(f"{self.engine / name} was altered after it was built")

    def publish(self, built: Path, sidecar: LlmSidecar) -> None:
        """Move a finished engine into place; until the sidecar follows, it does not count."""
        self.sidecar.unlink(missing_ok=True)
        shutil.rmtree(self.engine, ignore_errors=True)
        built.replace(self.engine)
        partial = self.sidecar.with_name(f".{self.sidecar.name}.partial-{os.getpid()}")
        partial.write_text(sidecar.to_json(), encoding="utf-8")
        partial.replace(self.sidecar)


def checkpoint_sha256(manifest: Manifest, directory: str) -> str:
    """One digest of the checkpoint's files, from the manifest's hashes."""
    hashes = sorted((name, f.sha256) for name, f in checkpoint_files(manifest, directory).items())
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def checkpoint_files(manifest: Manifest, directory: str) -> dict[str, FileEntry]:
    """The bundle's files that belong to the checkpoint."""
    prefix = directory.rstrip("/") + "/"
    return {name: f for name, f in manifest.files.items() if name.startswith(prefix)}

"""Which engines a machine can run, and why not the others."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.engines import engine_names, why_not
from hicom_edge.planning.machine import Machine, this_machine

if TYPE_CHECKING:
    from hicom_edge.planning.gpus import Gpu
    from hicom_edge.planning.jetson import Jetson

_DISTRIBUTIONS = (
    "hicom-edge",
    "numpy",
    "av",
    "pillow",
    "tokenizers",
    "torch",
    "tensorrt",
    "tensorrt-llm",
)
_ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu")
# TensorRT-RTX is installed under its alias, or as the bindings alone.
_RTX = "tensorrt-rtx"
_RTX_DISTRIBUTIONS = (_RTX, "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings")


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine is available, and the reason if not."""

    name: str
    available: bool
    reason: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Report on a machine and on what is installed.

    Attributes:
        memory_bytes: physical memory; None if unknown.
        memory_available_bytes: memory that is free or can be freed; None if unknown.
        jetson: the board; None for other machines. Its GPU works in main memory.
        versions: of packages that matter; None for those that are not installed.
        providers: execution providers that ONNX Runtime was built with.
        warnings: a line for each, with the remedy.
    """

    python: str
    system: str
    cpu: str
    cpu_cores: int
    memory_bytes: int | None
    memory_available_bytes: int | None
    jetson: Jetson | None
    gpus: tuple[Gpu, ...]
    versions: dict[str, str | None]
    providers: tuple[str, ...]
    engines: tuple[EngineStatus, ...]
    warnings: tuple[str, ...]


def examine(machine: Machine | None = None) -> Diagnosis:
    """Report on a machine (default: this one) and the packages of this Python."""
    machine = machine or this_machine()
    versions = {name: _version(name) for name in _DISTRIBUTIONS}
    versions[_RTX] = next(filter(None, map(_version, _RTX_DISTRIBUTIONS)), None)
    versions |= {name: _version(name) for name in _ONNXRUNTIMES}
    return Diagnosis(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu_name(),
        cpu_cores=os.cpu_count() or 1,
        memory_bytes=machine.memory_bytes,
        memory_available_bytes=machine.available_bytes,
        jetson=machine.jetson,
        gpus=machine.gpus,
        versions=versions,
        providers=_providers(),
        engines=tuple(_engine_status(name, machine) for name in engine_names()),
        warnings=tuple(_warnings(versions)),
    )


def _engine_status(name: str, machine: Machine) -> EngineStatus:
    reason = why_not(name, machine)
    return EngineStatus(name, reason is None, reason)


def _warnings(versions: dict[str, str | None]) -> list[str]:
    found = [name for name in _ONNXRUNTIMES if versions[name] is not None]
    warnings = []
    if len(found) == 2:
        warnings.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; keep "
            "one: pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime "
            "(or onnxruntime-gpu for an NVIDIA GPU)"
        )
    if not found:
        warnings.append(
            "onnxruntime is not installed, so nothing can be asked; pip install onnxruntime "
            "(or onnxruntime-gpu for an NVIDIA GPU)"
        )
    return warnings


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _providers() -> tuple[str, ...]:
    try:
        import onnxruntime

        return tuple(onnxruntime.get_available_providers())
    except (ImportError, AttributeError):  # two mixed installations import without their parts
        return ()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

"""Compiles the TensorRT plugin library with CMake, nvcc and TensorRT's headers.

A library that was built from the same sources, headers and compiler is reused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hicom_edge.errors import EngineError

LIBRARY_NAME = "libhicom_edge_plugins.so"
AUTOLOAD_NAME = "libhicom_edge_plugins_autoload.so"
INCLUDE_VARIABLE = "TENSORRT_INCLUDE_DIR"
DEFAULT_ARCHITECTURES = ("87", "90")
_SOURCES = Path(__file__).parent
_SOURCE_SUFFIXES = {".cu", ".cuh", ".h", ".cpp", ".txt"}
_RECORD_SUFFIX = ".json"
_RECORD_VERSION = 1


def build_plugin(
    output_dir: str | Path,
    include_dir: str | Path | None = None,
    architectures: Sequence[str] = DEFAULT_ARCHITECTURES,
) -> Path:
    """Build `libhicom_edge_plugins.so` into a directory, unless it is up to date.

    A second library is built beside it, which registers the plugin in tools (trtexec) that only
    open plugin libraries.

    Args:
        output_dir: created if missing; receives the libraries and a record of their sources.
        include_dir: directory of NvInfer.h; None: TENSORRT_INCLUDE_DIR, or the usual directories.
        architectures: CUDA architectures such as "87" (Orin) and "90" (H100, H200), or ("native",).

    Raises:
        EngineError: a compiler or the headers are missing, or the build failed.
    """
    cmake, nvcc = _tool("cmake"), _tool("nvcc")
    headers = find_include_dir(include_dir)
    target = Path(output_dir) / LIBRARY_NAME
    key = _build_key(headers, nvcc, architectures)
    if _is_current(target, key):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".plugin-", dir=target.parent) as scratch:
        built = _compile(Path(scratch), cmake, nvcc, headers, architectures)
        record = Path(scratch) / "record.json"
        record.write_text(json.dumps(_record(built, key)) + "\n", encoding="utf-8")
        # The record is moved last: until then, the libraries count as outdated.
        (built / AUTOLOAD_NAME).replace(target.with_name(AUTOLOAD_NAME))
        (built / LIBRARY_NAME).replace(target)
        record.replace(_record_path(target))
    return target


def find_include_dir(include_dir: str | Path | None = None) -> Path:
    """Directory of NvInfer.h: `include_dir`, TENSORRT_INCLUDE_DIR, or a usual directory.

    Raises:
        EngineError: the headers are missing; the message says where to get them.
    """
    named = include_dir or os.environ.get(INCLUDE_VARIABLE)
    candidates = [Path(named)] if named else _usual_places()
    for candidate in candidates:
        if (candidate / "NvInfer.h").is_file():
            return candidate.resolve()
    if named:
        raise EngineError(
            f"{named} holds no NvInfer.h; expected the directory of TensorRT's headers, "
            f"pass include_dir or set {INCLUDE_VARIABLE}"
        )
    raise EngineError(
        "TensorRT's headers (NvInfer.h) were not found; install libnvinfer-headers-dev "
        f"(JetPack: libnvinfer-dev), or set {INCLUDE_VARIABLE} to their directory"
    )


def _usual_places() -> list[Path]:
    """Directories of JetPack and Debian, of unpacked archives, and of Python packages."""
    places = [
        Path("/usr/include/aarch64-linux-gnu"),
        Path("/usr/include/x86_64-linux-gnu"),
        Path("/usr/include"),
        Path("/usr/local/tensorrt/include"),
        Path("/opt/tensorrt/include"),
        Path(sys.prefix) / "include",
    ]
    packages = Path(sysconfig.get_paths()["purelib"])
    names = ("tensorrt_libs", "tensorrt", "tensorrt_rtx_libs", "tensorrt_rtx")
    return places + [packages / name / "include" for name in names]


def _tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")
    if found is None:
        package = "the CUDA toolkit" if name == "nvcc" else name
        raise EngineError(f"{name} was not found; the plugin is compiled here, install {package}")
    return found


def _build_key(headers: Path, nvcc: str, architectures: Sequence[str]) -> str:
    """Digest of sources, headers' version, compiler and architectures."""
    digest = hashlib.sha256()
    for source in sorted(_SOURCES.iterdir()):
        if source.suffix in _SOURCE_SUFFIXES:
            digest.update(f"{source.name}\0".encode() + source.read_bytes() + b"\0")
    version = headers / "NvInferVersion.h"
    digest.update(version.read_bytes() if version.is_file() else b"")
    compiler = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
    digest.update(compiler.stdout.encode() + ";".join(architectures).encode())
    return digest.hexdigest()


def _record_path(target: Path) -> Path:
    return target.with_suffix(_RECORD_SUFFIX)


def _record(directory: Path, key: str) -> dict[str, Any]:
    """Hashes of the libraries in a directory, and the key of their build."""
    names = (LIBRARY_NAME, AUTOLOAD_NAME)
    files = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}
    return {"format_version": _RECORD_VERSION, "build": key, "sha256": files}


def _is_current(target: Path, key: str) -> bool:
    try:
        recorded = json.loads(_record_path(target).read_text(encoding="utf-8"))
        return bool(recorded == _record(target.parent, key))
    except (OSError, ValueError):
        return False


def _compile(
    scratch: Path, cmake: str, nvcc: str, headers: Path, architectures: Sequence[str]
) -> Path:
    """Compile the libraries and return the directory that has them."""
    build = scratch / "build"
    configure = [
        *(cmake, "-S", str(_SOURCES), "-B", str(build)),
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_CUDA_COMPILER={nvcc}",
        f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(architectures)}",
        f"-DTENSORRT_INCLUDE_DIR={headers}",
    ]
    for command in (configure, [cmake, "--build", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise EngineError(
                f"the plugin did not compile against {headers} ({_first_error(done)}); "
                f"see all of it with: cmake -S {_SOURCES} -B DIR -D{INCLUDE_VARIABLE}={headers}"
            )
    return build


def _first_error(done: subprocess.CompletedProcess[str]) -> str:
    """The first error in a build's output."""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines()]
    errors = [line for line in lines if "error" in line.lower()]
    return next(iter(errors or [line for line in lines if line]), f"status {done.returncode}")

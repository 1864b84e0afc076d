"""Imports TensorRT and TensorRT-RTX, two libraries with the same programming interface."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicom_edge.errors import EngineError


@dataclass(frozen=True)
class Flavour:
    """One of the two libraries.

    Attributes:
        name: engine name, such as "tensorrt".
        modules: names it can be imported by, best first.
        advice: how to install it.
        portable: its engines run on every GPU that it supports and are finished on first use.
        oldest: first version whose interface is used here; () for any.
    """

    name: str
    modules: tuple[str, ...]
    advice: str
    portable: bool
    oldest: tuple[int, ...] = ()


TENSORRT = Flavour(
    "tensorrt",
    ("tensorrt",),
    "on a Jetson it comes with JetPack (make the environment with --system-site-packages), "
    "elsewhere pip install tensorrt",
    portable=False,
    oldest=(10, 3),
)
TENSORRT_RTX = Flavour(
    "tensorrt-rtx",
    ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    "pip install '.[tensorrt-rtx]' in a checkout of hicom-edge",
    portable=True,
)
FLAVOURS = {flavour.name: flavour for flavour in (TENSORRT, TENSORRT_RTX)}

_RTX_LIBRARIES = "tensorrt_rtx_libs"
_RTX_LINK, _RTX_LIBRARY = "libtensorrt_rtx.so", "libtensorrt_rtx.so.1"


def takes_scatter(flavour: Flavour, version: str) -> bool:
    """Whether TensorScatter is supported: from TensorRT 10.15 on, and in TensorRT-RTX."""
    return flavour.portable or _numbers(version) >= (10, 15)


def prefers_functions(flavour: Flavour, version: str) -> bool:
    """Whether a model-local function wins over a plugin of the same name: before TensorRT 10.7."""
    return not flavour.portable and _numbers(version) < (10, 7)


def load_api(flavour: Flavour) -> Any:
    """Import the module of a flavour.

    Raises:
        EngineError: it is not installed, does not load, or is too old.
    """
    for name in flavour.modules:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            api = importlib.import_module(name)
        except (ImportError, OSError) as error:
            raise EngineError(f"{name} does not load ({error}); reinstall it") from error
        if hasattr(api, "Builder"):
            _check_version(flavour, api.__version__)
            return api
    raise EngineError(f"{flavour.name} is not installed ({flavour.advice})")


def why_not_installed(flavour: Flavour) -> str | None:
    """The reason why `load_api` would fail, or None."""
    try:
        load_api(flavour)
    except EngineError as error:
        return str(error)
    return None


def link_rtx_library() -> None:
    """Create the link that TensorRT-RTX's parser opens when a plugin is loaded; idempotent.

    The wheel has only `libtensorrt_rtx.so.1`. Without the unversioned name beside it, the process
    aborts instead of raising an exception.

    Raises:
        EngineError: the link is missing and cannot be made.
    """
    spec = importlib.util.find_spec(_RTX_LIBRARIES)
    if spec is None or spec.origin is None:  # installed by the system, which has the link
        return
    directory = Path(spec.origin).parent
    link = directory / _RTX_LINK
    if link.exists() or not (directory / _RTX_LIBRARY).exists():
        return
    try:
        link.symlink_to(_RTX_LIBRARY)
    except FileExistsError:  # made by another process meanwhile
        return
    except OSError as error:
        raise EngineError(
            f"{directory} lacks {_RTX_LINK}, which plugins need, and cannot be written "
            f"({error.strerror}); as its owner: ln -s {_RTX_LIBRARY} {link}"
        ) from error


def _check_version(flavour: Flavour, version: str) -> None:
    if _numbers(version) < flavour.oldest:
        oldest = ".".join(map(str, flavour.oldest))
        raise EngineError(
            f"{flavour.name} {version} is too old, hicom-edge needs {oldest} or later (on a Jetson "
            "JetPack 6.1 has it, JetPack 6.0 does not); install a later version"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])

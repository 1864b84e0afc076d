"""hicom-edge: ask questions about video on edge devices.

`from hicom_edge import VideoQA` is the way in. Importing the package loads nothing heavy: its names
are loaded when they are first used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hicom_edge.runtime import Answer as Answer
    from hicom_edge.runtime import Clip as Clip
    from hicom_edge.runtime import GenerationOptions as GenerationOptions
    from hicom_edge.runtime import Timings as Timings
    from hicom_edge.runtime import VideoQA as VideoQA

    __version__: str

# Before its first import: else ONNX Runtime writes a device id and an event store into the user's
# cache. Set it to 0 to allow that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_RUNTIME_NAMES = ("Answer", "Clip", "GenerationOptions", "Timings", "VideoQA")

__all__ = sorted(("__version__", *_RUNTIME_NAMES))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hicom-edge")
    if name not in _RUNTIME_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hicom_edge import runtime

    return getattr(runtime, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

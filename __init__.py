"""hicom-edge: ask questions about video on edge devices.

`from hicom_edge import VideoQA` is the entry point. The names of the runtime are loaded when they
are first used, so that importing the package is quick.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hicom_edge.errors import HicomEdgeError as HicomEdgeError

# The libraries read these when they are imported, which is later. Whoever wants their telemetry
# sets another value.
for _name, _value in (
    ("ORT_DISABLE_TELEMETRY", "1"),  # else ONNX Runtime 1.31 writes a device id to the user's cache
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("RAY_USAGE_STATS_ENABLED", "0"),
):
    os.environ.setdefault(_name, _value)

if TYPE_CHECKING:
    from hicom_edge.runtime import Answer as Answer
    from hicom_edge.runtime import Clip as Clip
    from hicom_edge.runtime import GenerationOptions as GenerationOptions
    from hicom_edge.runtime import Timings as Timings
    from hicom_edge.runtime import VideoQA as VideoQA

    __version__: str

_RUNTIME_NAMES = ("Answer", "Clip", "GenerationOptions", "Timings", "VideoQA")

__all__ = sorted(("HicomEdgeError", "__version__", *_RUNTIME_NAMES))


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

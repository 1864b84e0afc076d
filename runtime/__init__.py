"""The runtime: video and a question in, text out.

Its names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hicom_edge.runtime.answer import Answer as Answer
    from hicom_edge.runtime.answer import AnswerStream as AnswerStream
    from hicom_edge.runtime.answer import Clip as Clip
    from hicom_edge.runtime.generation import GenerationOptions as GenerationOptions
    from hicom_edge.runtime.qa import VideoQA as VideoQA
    from hicom_edge.runtime.timings import Timings as Timings

_HOMES = {
    "Answer": "hicom_edge.runtime.answer",
    "AnswerStream": "hicom_edge.runtime.answer",
    "Clip": "hicom_edge.runtime.answer",
    "GenerationOptions": "hicom_edge.runtime.generation",
    "Timings": "hicom_edge.runtime.timings",
    "VideoQA": "hicom_edge.runtime.qa",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

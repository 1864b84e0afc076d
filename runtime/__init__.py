"""The runtime: answers questions about videos with the engines of a bundle.

Names are imported when they are first used, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hicom_edge.engines.cancel import CancelToken as CancelToken
    from hicom_edge.runtime.answer import Answer as Answer
    from hicom_edge.runtime.answer import AnswerStream as AnswerStream
    from hicom_edge.runtime.answer import Clip as Clip
    from hicom_edge.runtime.conversation import Conversation as Conversation
    from hicom_edge.runtime.generation import GenerationOptions as GenerationOptions
    from hicom_edge.runtime.qa import VideoQA as VideoQA
    from hicom_edge.runtime.timings import Timings as Timings
    from hicom_edge.runtime.timings import WatchTimings as WatchTimings

_HOMES = {
    "Answer": "hicom_edge.runtime.answer",
    "AnswerStream": "hicom_edge.runtime.answer",
    "CancelToken": "hicom_edge.engines.cancel",
    "Clip": "hicom_edge.runtime.answer",
    "Conversation": "hicom_edge.runtime.conversation",
    "GenerationOptions": "hicom_edge.runtime.generation",
    "Timings": "hicom_edge.runtime.timings",
    "VideoQA": "hicom_edge.runtime.qa",
    "WatchTimings": "hicom_edge.runtime.timings",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

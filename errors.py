"""Exceptions of hicom-edge.

    HicomEdgeError
    ├── InputError            an unusable argument: a path, an option, an array
    │   ├── VideoError        a video that cannot be read or has no frames
    │   └── PromptError       a question that does not fit the model
    ├── CheckpointError       a checkpoint that is incomplete, unsupported or unsafe
    ├── BundleError           a bundle that is incomplete, altered or of another format version
    ├── EngineError           an engine that is missing or does not fit the bundle or device
    ├── ExportError           a model that cannot be expressed in the requested graph form
    ├── ResourceError         not enough memory or disk space
    └── Cancelled             a call that was cancelled, for example from another thread

Every message is one line: what was received, what was expected, what to do. The command line prints
it and exits with status 2, and does the same for OSError and MemoryError. Any
other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class HicomEdgeError(Exception):
    """Base of all errors caused by the input or the machine rather than by a bug.

    Attributes:
        options: names of the options in the message. The command line replaces them by its flags,
            such as num_frames by --num-frames.
    """

    def __init__(self, message: str = "", *options: str) -> None:
        super().__init__(message)
        self.options = options

    def __reduce__(self) -> tuple[type[HicomEdgeError], tuple[str, ...]]:
        return type(self), (str(self), *self.options)


class InputError(HicomEdgeError):
    """An argument is invalid."""


class VideoError(InputError):
    """A video, image or directory of frames cannot be read."""


class PromptError(InputError):
    """The question, the guide or the options do not fit the model."""


class CheckpointError(HicomEdgeError):
    """A checkpoint lacks tensors, has unexpected ones, or cannot be read safely."""


class BundleError(HicomEdgeError):
    """A bundle is incomplete, altered, not a bundle, or of an unknown format version."""


class EngineError(HicomEdgeError):
    """An engine is not available here, or does not fit the bundle."""


class ExportError(HicomEdgeError):
    """A model cannot be exported in the requested form."""


class ResourceError(HicomEdgeError):
    """Not enough memory, device memory or disk."""


class Cancelled(HicomEdgeError):  # noqa: N818, a cancelled call is not an error
    """The call was cancelled; the objects it used remain usable."""

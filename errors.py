"""The errors that hicom-edge raises on purpose.

    HicomEdgeError
    ├── InputError            what the caller passed: a path, an option, an array
    │   ├── VideoError        a video that cannot be read, or holds no frames
    │   └── PromptError       a question that does not fit the model
    ├── CheckpointError       a checkpoint that is incomplete, foreign or unsafe
    ├── BundleError           a bundle that is incomplete, altered or of another format version
    ├── EngineError           an engine that is not installed, or does not fit the bundle or device
    ├── ExportError           a model that cannot be expressed in the requested graph form
    ├── ResourceError         not enough memory or disk for what was asked
    └── Cancelled             a call that its caller cancelled from elsewhere

Every message is one line: what was received, what was expected, what to do. The command line prints
it and exits with status 2, as it does when the system refuses a file or memory (OSError,
MemoryError). Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class HicomEdgeError(Exception):
    """Base of all errors caused by the input or the machine rather than by a bug.

    Attributes:
        options: names of the options that the message is about. The command line writes them as
            its own, such as --num-frames for num_frames.
    """

    def __init__(self, message: str = "", *options: str) -> None:
        super().__init__(message)
        self.options = options

    def __reduce__(self) -> tuple[type[HicomEdgeError], tuple[str, ...]]:
        return type(self), (str(self), *self.options)


class InputError(HicomEdgeError):
    """The caller passed something that cannot be used."""


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


class Cancelled(HicomEdgeError):  # noqa: N818, what happened is no error of anybody's
    """The call was cancelled by its caller; what it worked with can be used again."""

"""The CUDA libraries that ONNX Runtime's GPU providers are linked to.

It knows how they are found, in the system or in packages of pip. It does not know sessions.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from functools import cache

# cuDNN is what the vision graph's convolution runs in.
_LIBRARIES = ("libcudart.so.{}", "libcublasLt.so.{}", "libcublas.so.{}", "libcurand.so.10")
_CUDNN = "libcudnn.so.9"


@cache
def missing_library() -> str | None:
    """The first CUDA library that cannot be loaded, or None.

    Those in packages of pip lie where the system does not look: they are loaded here, and a
    provider that is linked to them takes what is loaded.
    """
    import onnxruntime

    major = onnxruntime.cuda_version.partition(".")[0]
    if not major or sys.platform != "linux":
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()
    names = (*(name.format(major) for name in _LIBRARIES), _CUDNN)
    return next((name for name in names if not loads(name)), None)


def loads(library: str) -> bool:
    """Whether the system's loader finds a library, or has it already."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True

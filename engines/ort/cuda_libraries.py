"""The CUDA libraries that ONNX Runtime's GPU providers are linked to.

It knows how they are found, in the system or in packages of pip. It does not know sessions.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from functools import cache

# cuDNN is what the vision graph's convolution runs in. Up to 1.26, for CUDA 12, the provider is
# linked to cuFFT as well (1.27 too; its extra brings it).
_LIBRARIES = ("libcudart.so.{}", "libcublasLt.so.{}", "libcublas.so.{}", "libcurand.so.10")
_CUFFT = {"12": ("libcufft.so.11",)}
_CUDNN = "libcudnn.so.9"


def driver_too_old(driver: str | None) -> str | None:
    """The driver's CUDA version if it is older than the CUDA that ONNX Runtime was built with.

    Any driver of the same major version works.
    """
    import onnxruntime

    built_with = onnxruntime.cuda_version.partition(".")[0]
    if not built_with or driver is None:
        return None
    return driver if int(driver.partition(".")[0]) < int(built_with) else None


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
    names = (*(name.format(major) for name in _LIBRARIES), *_CUFFT.get(major, ()), _CUDNN)
    return next((name for name in names if not loads(name)), None)


def loads(library: str) -> bool:
    """Whether the system's loader finds a library, or has it already."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True

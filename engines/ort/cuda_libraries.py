"""Finds the CUDA libraries of ONNX Runtime's GPU providers, in the system or in pip packages."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from functools import cache

# The vision graph's convolution needs cuDNN. The providers for CUDA 12 (up to 1.26) are linked to
# cuFFT as well; so is 1.27, whose pip extra installs it.
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

    The system's loader does not search pip packages. Libraries from there are loaded here, and the
    provider then uses the loaded ones.
    """
    import onnxruntime

    major = onnxruntime.cuda_version.partition(".")[0]
    if not major or sys.platform != "linux":
        return None
    with contextlib.redirect_stdout(
        io.StringIO()
    ):  # it prints the names of libraries that are missing
        onnxruntime.preload_dlls()
    names = (*(name.format(major) for name in _LIBRARIES), *_CUFFT.get(major, ()), _CUDNN)
    return next((name for name in names if not loads(name)), None)


def loads(library: str) -> bool:
    """Whether a library is loaded or can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True

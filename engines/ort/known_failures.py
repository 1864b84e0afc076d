"""Failures of ONNX Runtime with a known cause, in words that say what to do."""

from __future__ import annotations

import re

_NO_PROC = "requires procfs"
_NO_PROC_WORDS = (
    "its weights cannot be opened because /proc is not mounted; mount it in this chroot or "
    "sandbox, or install 'onnxruntime<1.31', which does not need it"
)
_IR_VERSION = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OPSET = re.compile(r"Opset (\d+) is under development.* for domain \S+ is till opset (\d+)")
_AGAIN = "export the bundle again with this hicom-edge, or install a later onnxruntime"


def known_failure(reason: str) -> str | None:
    """A message of ONNX Runtime, on one line, in our words; None if its cause is not known.

    ONNX Runtime puts the cause behind C++ signatures, where a shortened message would lose it.
    """
    if _NO_PROC in reason:
        return _NO_PROC_WORDS
    if (found := _IR_VERSION.search(reason)) is not None:
        return f"it has ONNX IR version {found[1]}, which is read up to {found[2]}; {_AGAIN}"
    if (found := _OPSET.search(reason)) is not None:
        return f"it has ONNX opset {found[1]}, which is supported up to {found[2]}; {_AGAIN}"
    return None

"""Versions of the packages that a calibration's numbers come from.

It knows names of distributions. It imports none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

COMPUTING = ("hicom-edge", "onnxruntime", "onnxruntime-gpu")
"""Another version of these may find other numbers from the same data."""
PACKAGES = (*COMPUTING, "numpy", "onnx", "onnx-ir")


def installed_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The version of each of these packages that is installed, by name."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

"""Bundles on disk: manifest, verified reading, atomic writing and inspection."""

from hicom_edge.bundle.reader import (
    ENGINES_DIR,
    MANIFEST_NAME,
    Bundle,
    is_unaltered,
    sha256_of,
    text_of,
)

__all__ = [
    "ENGINES_DIR",
    "MANIFEST_NAME",
    "Bundle",
    "is_unaltered",
    "sha256_of",
    "text_of",
]

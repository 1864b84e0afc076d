"""Bundles on disk: the manifest, opening with checks, writing whole or not at all, inspection."""

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

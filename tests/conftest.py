"""Fixtures that several folders of tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from reference_data import reference_dir, write_variant

from hicom_edge.bundle import Bundle


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stamps of hashed files go into a directory of this run, not into the user's cache."""
    import os

    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def reference_checkpoint() -> Path:
    """The authors' tiny checkpoint with the released settings."""
    return reference_dir() / "ckpt_small" / "release"


@pytest.fixture(scope="session")
def variant_checkpoint(tmp_path_factory: pytest.TempPathFactory):
    """A function that writes a variant of the tiny checkpoint once and returns its path."""
    directory, written = tmp_path_factory.mktemp("variants"), {}

    def write(name: str) -> Path:
        if name not in written:
            written[name] = write_variant(name, directory)
        return written[name]

    return write


@pytest.fixture(scope="session")
def variant_bundle(variant_checkpoint, tmp_path_factory: pytest.TempPathFactory):
    """A function that exports a variant of the tiny checkpoint once and opens its bundle."""
    from hicom_edge.export.exporter import export_bundle

    directory, opened = tmp_path_factory.mktemp("bundles"), {}

    def export(name: str, **options: object) -> Bundle:
        key = (name, *sorted(options.items()))
        if key not in opened:
            target = directory / "-".join(map(str, (name, *options.values())))
            opened[key] = export_bundle(variant_checkpoint(name), target, **options).bundle
        return opened[key]

    return export


@pytest.fixture(scope="session")
def reference_bundle(variant_bundle) -> Bundle:
    """The bundle of the authors' tiny checkpoint with the released settings."""
    return variant_bundle("release")

"""The specification in docs/ and the code say the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from hicom_edge.bundle import manifest
from hicom_edge.export.opsets import family_for_opset

TEXT = (Path(__file__).parents[2] / "docs/bundle_format.md").read_text(encoding="utf-8")
SPECS = [
    value
    for value in vars(manifest).values()
    if dataclasses.is_dataclass(value) and value.__module__ == manifest.__name__
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_key_is_specified(spec):
    missing = [f.name for f in dataclasses.fields(spec) if f"`{f.name}`" not in TEXT]
    assert not missing


def test_the_version_is_the_one_specified():
    assert f"version {manifest.FORMAT_VERSION}" in TEXT.splitlines()[0]
    assert f'`"{manifest.FORMAT}"`' in TEXT


def test_the_digest_is_computed_as_specified(reference_bundle):
    body = json.loads((reference_bundle.path / "manifest.json").read_text(encoding="utf-8"))
    digest = body.pop("digest")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode("utf-8")).hexdigest() == digest


@pytest.mark.parametrize("name", ["vision", "guide", "compressor", "decoder"])
def test_every_tensor_and_axis_is_specified(reference_bundle, name):
    entry = reference_bundle.graph(name)
    for spec in entry.inputs + entry.outputs:
        stem, *rest = spec.name.split(".")
        assert f"`{stem}.{{i}}.key`" in TEXT if rest else f"`{stem}`" in TEXT, spec.name
        assert all(axis in TEXT for axis in spec.shape if isinstance(axis, str)), spec


@pytest.mark.parametrize("opset", [18, 19, 20, 23])
def test_the_families_are_as_specified(opset):
    family = family_for_opset(opset).name
    row = next(
        line
        for line in TEXT.splitlines()
        if line.startswith(f"| {'23' if opset == 23 else '18, 19, 20'} |")
    )
    assert f"| {family}:" in row

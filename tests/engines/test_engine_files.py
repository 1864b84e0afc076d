"""An engine counts only with a sidecar that fits: half-written, stale and foreign ones do not."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from hicom_edge.engines import why_not_built
from hicom_edge.engines.engine_files import (
    EngineFiles,
    checkpoint_sha256,
    engine_directory,
    find_engine,
    graph_sha256,
)
from hicom_edge.engines.sidecar import LANGUAGE_MODEL, Expected, Sidecar
from hicom_edge.errors import EngineError
from hicom_edge.planning.gpus import Gpu
from hicom_edge.planning.profiles import ShapeRange

DOC = Path(__file__).parents[2] / "docs" / "engine_files.md"
ORIN = Gpu("Orin (nvgpu)", (8, 7), 8 << 30, 8)
HERE = Expected("a" * 64, "tensorrt", "10.3.0", ORIN, "b" * 64)
SIDECAR = Sidecar(
    format_version=2,
    source="vision",
    source_sha256="a" * 64,
    engine="tensorrt",
    engine_version="10.3.0",
    cuda_version="12.6",
    device=ORIN.model,
    compute_capability="8.7",
    precision="fp16",
    plugin_sha256="b" * 64,
    version_compatible=False,
    options={"workspace_bytes": 5},
    profiles=({"x": ShapeRange((1, 2), (4, 2), (8, 2))},),
    files={"vision.engine": (5, "0" * 64)},
)
LLM_SIDECAR = replace(
    SIDECAR,
    source=LANGUAGE_MODEL,
    engine="tensorrt-llm",
    engine_version="0.12.0",
    precision="W4A16_AWQ",
    plugin_sha256=None,
    options={"max_batch_size": 1, "gemm_plugin": "auto"},
    profiles=(),
    files={"llm/config.json": (2, "1" * 64), "llm/rank0.engine": (5, "2" * 64)},
)


def written(files: EngineFiles, sidecar: Sidecar = SIDECAR, content: bytes = b"plan!") -> Sidecar:
    with files.replacement() as new:
        new.path.write_bytes(content)
        own = replace(sidecar, files=files.describe(new.path))
        files.publish(new, own)
    return own


@pytest.fixture
def files(tmp_path: Path) -> EngineFiles:
    return EngineFiles(tmp_path / "engines" / "tensorrt-orin", "vision")


def test_a_sidecar_comes_back_as_it_was_written(files) -> None:
    assert files.directory.name == "tensorrt-orin"
    own = written(files)
    assert files.read_sidecar() == own
    files.check_content(own)
    assert sorted(p.name for p in files.directory.iterdir()) == ["vision.engine", "vision.json"]


def test_a_new_engine_forgets_what_was_compiled_for_the_last(files) -> None:
    written(files)
    old, other = files.kernels("orin-8"), EngineFiles(files.directory, "guide").kernels("orin-8")
    assert old.name == "vision.orin-8.kernels"
    old.touch()
    other.touch()
    written(files, content=b"again")
    assert not old.exists()
    assert other.exists()


GOLDEN = """{
  "format_version": 2,
  "source": "vision",
  "source_sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "engine": "tensorrt",
  "engine_version": "10.3.0",
  "cuda_version": "12.6",
  "device": "Orin (nvgpu), 8 multiprocessors",
  "compute_capability": "8.7",
  "precision": "fp16",
  "plugin_sha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
  "version_compatible": false,
  "options": {"workspace_bytes": 5},
  "profiles": [{"x": [[1, 2], [4, 2], [8, 2]]}],
  "files": {"vision.engine": [5, "000"]}
}
""".replace("000", "0" * 64)

GOLDEN_LLM = """{
  "format_version": 2,
  "source": "llm",
  "source_sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "engine": "tensorrt-llm",
  "engine_version": "0.12.0",
  "cuda_version": "12.6",
  "device": "Orin (nvgpu), 8 multiprocessors",
  "compute_capability": "8.7",
  "precision": "W4A16_AWQ",
  "plugin_sha256": null,
  "version_compatible": false,
  "options": {"max_batch_size": 1, "gemm_plugin": "auto"},
  "profiles": [],
  "files": {"llm/config.json": [2, "111"], "llm/rank0.engine": [5, "222"]}
}
""".replace("111", "1" * 64).replace("222", "2" * 64)


@pytest.mark.parametrize(
    ("sidecar", "text"), [(SIDECAR, GOLDEN), (LLM_SIDECAR, GOLDEN_LLM)], ids=["graph", "llm"]
)
def test_a_sidecar_is_written_as_specified(sidecar: Sidecar, text: str, tmp_path: Path) -> None:
    assert sidecar.to_json() == text
    assert Sidecar.from_json(text, tmp_path) == sidecar


@pytest.mark.skipif(not DOC.is_file(), reason="the documentation is not part of the wheel")
def test_the_specification_names_every_key() -> None:
    lines = DOC.read_text(encoding="utf-8").splitlines()
    keys = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert keys == [field.name for field in fields(Sidecar)]


def test_an_engine_without_a_sidecar_does_not_count(files) -> None:
    written(files)
    files.sidecar.unlink()
    with pytest.raises(EngineError, match=r"there is no engine .*vision\.engine"):
        files.read_sidecar()


def test_half_an_engine_does_not_count(files) -> None:
    written(files)
    files.engine.write_bytes(b"pla")
    with pytest.raises(EngineError, match=r"vision\.engine is not the file that its sidecar"):
        files.read_sidecar()


def test_a_flipped_byte_is_found(files) -> None:
    own = written(files)
    files.check_content(own)
    files.engine.write_bytes(b"plan?")
    with pytest.raises(EngineError, match=r"vision\.engine was altered after it was built"):
        files.check_content(own)


def test_an_engine_that_did_not_change_is_read_through_once(files, monkeypatch) -> None:
    own = written(files)
    files.check_content(own)
    monkeypatch.setattr("hicom_edge.bundle.sha256_of", lambda path, progress: pytest.fail("read"))
    files.check_content(own)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "{",
        '{"format_version": 2, "profiles": [], "files": {}}',
        GOLDEN.replace("[[1, 2], [4, 2], [8, 2]]", "1"),
        GOLDEN.replace("[5, ", "["),
        GOLDEN.replace("precision", "accuracy"),
    ],
)
def test_something_else_is_no_sidecar(files, text: str) -> None:
    written(files)
    files.sidecar.write_text(text)
    with pytest.raises(EngineError, match=r"vision\.json is not an engine's sidecar"):
        files.read_sidecar()


OLD = """{
  "format_version": 1,
  "graph": "vision",
  "graph_sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "engine": "tensorrt",
  "size": 5,
  "sha256": "0000000000000000000000000000000000000000000000000000000000000000"
}
"""


def test_an_engine_of_an_older_format_is_refused_with_the_command(
    reference_bundle, tmp_path: Path
) -> None:
    bundle = replace(reference_bundle, path=tmp_path)
    files = EngineFiles(engine_directory(bundle, "tensorrt", ORIN.folder), "vision")
    written(files)
    files.sidecar.write_text(OLD)
    message = (
        r"vision\.json has format version 1, this hicom-edge reads version 2; build it: "
        rf"hicom-edge build {tmp_path} --engine tensorrt"
    )
    with pytest.raises(EngineError, match=message):
        find_engine(bundle, "vision", HERE)


@pytest.mark.parametrize("name", ["../vision.engine", "guide.engine", "vision.engine/../x", "/x"])
def test_a_sidecar_that_names_files_of_others_is_refused(files, name: str) -> None:
    own = written(files)
    files.sidecar.write_text(replace(own, files={name: (5, "0" * 64)}).to_json())
    with pytest.raises(EngineError, match=r"vision\.json names .*, which is not part of"):
        files.read_sidecar()


def test_an_engine_of_a_language_model_is_a_directory(tmp_path: Path) -> None:
    files = EngineFiles(tmp_path / "tensorrt-llm-orin", LANGUAGE_MODEL)
    for content in (b"plan!", b"other"):
        with files.replacement() as new:
            new.path.mkdir()
            (new.path / "config.json").write_text("{}")
            (new.path / "rank0.engine").write_bytes(content)
            files.publish(new, replace(LLM_SIDECAR, files=files.describe(new.path)))
    sidecar = files.read_sidecar()
    assert list(sidecar.files) == ["llm/config.json", "llm/rank0.engine"]
    assert sidecar.size == 7
    files.check_content(sidecar)
    assert (files.engine / "rank0.engine").read_bytes() == b"other"
    assert sorted(p.name for p in files.directory.iterdir()) == ["llm", "llm.json"]
    (files.engine / "rank0.engine").write_bytes(b"plan?")
    with pytest.raises(EngineError, match=r"rank0\.engine was altered after it was built"):
        files.check_content(sidecar)


def test_another_checkpoint_is_called_one() -> None:
    here = Expected("c" * 64, "tensorrt-llm", None, ORIN)
    assert here.difference(LLM_SIDECAR) == "another checkpoint: aaaaaaaaaaaa, here is cccccccccccc"
    assert replace(here, source_sha256="a" * 64).difference(LLM_SIDECAR) is None
    other = replace(here, source_sha256="a" * 64, engine_version="0.12.1")
    assert other.difference(LLM_SIDECAR) == "another version: 0.12.0, here is 0.12.1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source_sha256": "c" * 64}, "another graph: cccccccccccc, here is aaaaaaaaaaaa"),
        ({"engine": "tensorrt-rtx"}, "another engine: tensorrt-rtx, here is tensorrt"),
        ({"engine_version": "10.7.0"}, "another version: 10.7.0, here is 10.3.0"),
        (
            {"device": "Orin (nvgpu), 16 multiprocessors"},
            r"another device: Orin \(nvgpu\), 16 mult[a-z]+, here is Orin \(nvgpu\), 8 mult[a-z]+",
        ),
        ({"compute_capability": "8.6"}, "another compute capability: 8.6, here is 8.7"),
        ({"plugin_sha256": "d" * 64}, "another plugin: dddddddddddd, here is bbbbbbbbbbbb"),
    ],
)
def test_a_stale_or_foreign_engine_is_refused_with_the_command(
    reference_bundle, tmp_path: Path, change: dict, reason: str
) -> None:
    bundle = replace(reference_bundle, path=tmp_path)
    files = EngineFiles(engine_directory(bundle, "tensorrt", ORIN.folder), "vision")
    written(files)
    assert find_engine(bundle, "vision", HERE)[0] == files
    written(files, replace(SIDECAR, **change))
    command = f"hicom-edge build {tmp_path} --engine tensorrt"
    with pytest.raises(EngineError, match=rf"built from or for {reason}; build it: {command}"):
        find_engine(bundle, "vision", HERE)


def test_no_engine_at_all_is_refused_with_the_command(reference_bundle, tmp_path: Path) -> None:
    bundle = replace(reference_bundle, path=tmp_path)
    with pytest.raises(EngineError, match=r"there is no engine .*hicom-edge build "):
        find_engine(bundle, "vision", HERE)


def test_half_an_engine_for_any_device_is_named_and_not_the_one_that_was_never_there(
    reference_bundle, tmp_path: Path
) -> None:
    bundle = replace(reference_bundle, path=tmp_path)
    files = EngineFiles(engine_directory(bundle, "tensorrt", "any"), "vision")
    written(files, replace(SIDECAR, device=None, compute_capability=None))
    files.engine.write_bytes(b"pla")
    with pytest.raises(EngineError, match=r"any.vision\.engine is not the file that its sidecar"):
        find_engine(bundle, "vision", HERE)


def test_a_portable_engine_runs_on_any_device(reference_bundle, tmp_path: Path) -> None:
    bundle = replace(reference_bundle, path=tmp_path)
    files = EngineFiles(engine_directory(bundle, "tensorrt", "ampere-plus"), "vision")
    written(files, replace(SIDECAR, device=None, compute_capability=None))
    assert find_engine(bundle, "vision", HERE)[0] == files


@pytest.mark.parametrize(
    ("engine", "built"), [("tensorrt", True), ("of a later hicom-edge", False), (None, False)]
)
def test_engines_that_are_passed_over_are_those_that_this_version_knows(
    reference_bundle, tmp_path: Path, engine: str, built: bool
) -> None:
    bundle = replace(reference_bundle, path=tmp_path)
    directory = engine_directory(bundle, "tensorrt", "orin")
    written(EngineFiles(directory, "vision"), replace(SIDECAR, engine=engine))
    assert (why_not_built(bundle) is not None) == built


def test_an_engine_without_a_plugin_needs_none() -> None:
    plain = replace(SIDECAR, plugin_sha256=None)
    assert HERE.difference(plain) is None
    assert replace(HERE, plugin_sha256=None).difference(plain) is None


@pytest.mark.parametrize(
    ("built_with", "runs_in", "fits"),
    [
        ("10.3.0", "10.13.2", True),
        ("10.13.2", "10.3.0", False),
        ("10.3.0", "11.0.0", False),
    ],
)
def test_a_version_compatible_engine_runs_in_later_versions(built_with, runs_in, fits) -> None:
    sidecar = replace(SIDECAR, engine_version=built_with, version_compatible=True)
    assert (replace(HERE, engine_version=runs_in).difference(sidecar) is None) == fits


def test_the_digest_of_a_graph_follows_its_weights(reference_bundle) -> None:
    manifest = reference_bundle.manifest
    before = graph_sha256(manifest, "vision")
    name = next(n for n in manifest.files if n.startswith("vision.onnx"))
    changed = {**manifest.files, name: replace(manifest.files[name], sha256="f" * 64)}
    assert graph_sha256(replace(manifest, files=changed), "vision") != before
    assert graph_sha256(replace(manifest, files=changed), "guide") == graph_sha256(
        manifest, "guide"
    )


def test_the_digest_of_a_checkpoint_covers_its_directory_alone(reference_bundle) -> None:
    manifest = reference_bundle.manifest
    entry = next(iter(manifest.files.values()))
    own = {"llm/config.json": entry, "llm/rank0.safetensors": entry}
    digest = checkpoint_sha256(replace(manifest, files=own), "llm")
    assert checkpoint_sha256(replace(manifest, files={**own, "llm2/x": entry}), "llm/") == digest
    changed = {**own, "llm/config.json": replace(entry, sha256="f" * 64)}
    assert checkpoint_sha256(replace(manifest, files=changed), "llm") != digest

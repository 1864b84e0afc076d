"""A bundle is written whole or not at all, and nothing altered, foreign or outside is opened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hicom_edge.bundle import MANIFEST_NAME, Bundle
from hicom_edge.bundle.manifest import (
    ChatSpec,
    FrameSpec,
    GenerationSpec,
    GraphEntry,
    Manifest,
    ModelSpec,
    Provenance,
    TensorSpec,
)
from hicom_edge.bundle.writer import BundleWriter
from hicom_edge.errors import BundleError, InputError
from hicom_edge.files import FileLock

CONTENT = {"vision.onnx": b"graph", "token_embedding.npy": b"rows", "tokenizer.json": b"{}"}


def manifest() -> Manifest:
    model = ModelSpec(
        "hicom_qwen2", "local43_global32", "direct", "direct", 64, 64, 48, 126, 14, (9, 9), 4,
        (3, 3), 32, 448, 2, 2, 16, 32768,
    )  # fmt: skip
    return Manifest(
        name="test",
        model=model,
        frames=FrameSpec(32, 126, (0.5,) * 3, (0.5,) * 3, 1 / 255, "bicubic", "pad"),
        guide=None,
        chat=ChatSpec(None, "{content}", "{content}", "{content}", ""),
        generation=GenerationSpec((1,)),
        tokenizer="tokenizer.json",
        token_embedding="token_embedding.npy",
        graphs={
            "vision": GraphEntry(
                "vision.onnx",
                "fp32",
                23,
                (TensorSpec("pixel_values", "float32", ("num_frames", 3, 126, 126)),),
                (),
            )
        },
        files={},
        provenance=Provenance("test", "0" * 64, {"hicom-edge": "0"}),
    )


def write(target: Path, overwrite: bool = False) -> Bundle:
    with BundleWriter(target, overwrite) as writer:
        for name, content in CONTENT.items():
            (writer.path / name).write_bytes(content)
        return writer.finish(manifest())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write(tmp_path / "bundle")
    return tmp_path / "bundle"


def change_manifest(bundle: Path, change) -> None:
    """Change the manifest and sign it again: only its own rules can refuse it."""
    path = bundle / MANIFEST_NAME
    text = path.read_text()
    body = json.loads(Manifest.from_json(text, "").to_json())
    change(body)
    del body["digest"]
    from hicom_edge.bundle import manifest as module

    path.write_text(json.dumps(body | {"digest": module._digest(body)}))


def test_what_was_written_is_what_is_read(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    expected = replace(manifest(), files=opened.manifest.files)
    assert opened.manifest == expected
    assert {n: opened.file(n).read_bytes() for n in opened.manifest.files} == CONTENT
    assert opened.graph("vision").inputs[0].shape == ("num_frames", 3, 126, 126)


def test_an_unknown_graph_or_file_lists_the_known_ones(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    with pytest.raises(BundleError, match=r"no graph 'decoder'; it has \['vision'\]"):
        opened.graph("decoder")
    with pytest.raises(BundleError, match=r"no file 'x'; it has \['token_embedding.npy'"):
        opened.file("x")


@pytest.mark.parametrize("name", CONTENT)
def test_a_flipped_byte_in_a_file_is_refused(bundle: Path, name: str) -> None:
    Bundle.open(bundle)  # hashes are remembered, and must be forgotten with the change
    path = bundle / name
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=times)  # even a change that hides its modification time
    with pytest.raises(BundleError, match=f"{name} was altered: sha256 .* its manifest says"):
        Bundle.open(bundle)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_manifest_is_refused(bundle: Path, position: float, bit: int) -> None:
    path = bundle / MANIFEST_NAME
    original = path.read_bytes()
    data = bytearray(original)
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        opened = Bundle.open(bundle)
    except BundleError as error:
        assert "\n" not in str(error)
    else:  # white space between tokens carries no meaning
        assert opened.manifest == Manifest.from_json(original.decode(), "")
    finally:
        path.write_bytes(original)


def test_a_file_that_was_cut_short_is_refused(bundle: Path) -> None:
    (bundle / "vision.onnx").write_bytes(b"gra")
    with pytest.raises(BundleError, match="has 3 bytes, its manifest says 5"):
        Bundle.open(bundle)


def test_a_missing_file_is_refused(bundle: Path) -> None:
    (bundle / "vision.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks vision.onnx, which its manifest lists"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "..\\outside"])
def test_a_manifest_that_points_outside_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "outside").write_bytes(b"x")

    def point_outside(body: dict) -> None:
        body["files"][name] = body["files"].pop("vision.onnx")
        body["graphs"]["vision"]["file"] = name

    change_manifest(bundle, point_outside)
    with pytest.raises(BundleError, match="which lies outside the bundle; do not use"):
        Bundle.open(bundle)


def test_a_link_that_leads_outside_is_refused(bundle: Path) -> None:
    (bundle.parent / "outside").write_bytes(CONTENT["vision.onnx"])
    (bundle / "vision.onnx").unlink()
    (bundle / "vision.onnx").symlink_to(bundle.parent / "outside")
    with pytest.raises(BundleError, match="which lies outside the bundle"):
        Bundle.open(bundle)


def test_a_file_that_is_used_but_not_hashed_is_refused(bundle: Path) -> None:
    change_manifest(bundle, lambda body: body["files"].pop("vision.onnx"))
    with pytest.raises(BundleError, match=r"uses \['vision.onnx'\] but lists no hash"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.update(format_version=99), "format version 99, this hicom-edge reads"),
        (lambda b: b.update(format="zip"), "is not a hicom-edge-bundle manifest"),
        (lambda b: b.update(mood="good"), r"unknown keys \['mood'\]"),
        (lambda b: b.pop("chat"), r"lacks \['chat'\]"),
        (lambda b: b["model"].update(vision_dim="64"), "ModelSpec.vision_dim: expected int"),
        (lambda b: b["model"].update(grid=[9]), "expected 2 items, got 1"),
        (lambda b: b.update(guide=7), "Manifest.guide: expected an object for GuideSpec, got 7"),
        (lambda b: b.update(graphs=[]), "expected an object"),
        (lambda b: b["model"].update(head_dim=10**30), "model.head_dim is 10+, expected 0 to 2147"),
        (lambda b: b["model"].update(grid=[9, -1]), "model.grid is -1, expected 0 to"),
        (lambda b: b["frames"].update(num_frames=0), "frames.num_frames is 0, expected 1 to"),
        (lambda b: b["frames"].update(mean=[0.5, 7, 0]), "frames.mean is 7.0, expected 0 to 1"),
        (lambda b: b["frames"].update(std=[0, 1, 1]), "frames.std is 0.0, expected 1e-09 to"),
        (lambda b: b["frames"].update(rescale_factor=float("nan")), "rescale_factor is nan"),
        (lambda b: b["frames"].update(image_size=127), "frames.image_size is 127, expected that"),
        (lambda b: b["generation"].update(stop_token_ids=[-1]), "stop_token_ids is -1"),
        (lambda b: b["generation"].update(top_p=0.0), "generation.top_p is 0.0"),
        (lambda b: b["graphs"]["vision"].update(precision="fp8"), "precision is 'fp8', expected"),
        (
            lambda b: b["graphs"]["vision"]["inputs"][0].update(dtype="float33"),
            r"graphs\['vision'\]: dtype of pixel_values is 'float33', expected one of",
        ),
        (
            lambda b: b["graphs"]["vision"]["inputs"][0].update(shape=[-4]),
            "size of pixel_values is -4",
        ),
    ],
)
def test_a_manifest_of_another_form_is_refused(bundle: Path, change, message: str) -> None:
    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=message) as error:
        Bundle.open(bundle)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"name": "\\ud800"}'])
def test_json_that_python_cannot_hold_is_refused(bundle: Path, text: str) -> None:
    (bundle / MANIFEST_NAME).write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json is not valid JSON \(") as error:
        Bundle.open(bundle)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a\0b", "loop"])
def test_a_name_that_no_file_can_have_is_refused(bundle: Path, name: str) -> None:
    (bundle / "loop").symlink_to("loop")
    change_manifest(bundle, lambda body: body.update(tokenizer=name))
    with pytest.raises(BundleError, match="which lies outside the bundle; do not use"):
        Bundle.open(bundle)


def test_a_user_without_a_home_directory_opens_a_bundle(bundle: Path, monkeypatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert Bundle.open(bundle).manifest.name == "test"


def test_a_half_written_bundle_is_refused(bundle: Path) -> None:
    (bundle / MANIFEST_NAME).unlink()
    with pytest.raises(BundleError, match=r"no manifest.json: not a bundle, or half-written"):
        Bundle.open(bundle)


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist; pass the directory"):
        Bundle.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="is a file; pass the directory"):
        Bundle.open(tmp_path / "file")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "bundle") as writer:
        (writer.path / "vision.onnx").write_bytes(b"x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_and_a_running_ones_is_not(tmp_path: Path) -> None:
    abandoned = tmp_path / ".bundle.partial-abandoned"
    abandoned.mkdir()
    (abandoned / "decoder.onnx.data").write_bytes(b"x")
    (tmp_path / ".bundle[1].partial-other").mkdir()
    with BundleWriter(tmp_path / "bundle") as first:
        assert not abandoned.exists()
        with BundleWriter(tmp_path / "bundle"):
            assert first.path.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == [".bundle[1].partial-other"]


def test_a_bundle_that_a_killed_writer_was_removing_is_removed(bundle: Path) -> None:
    removed = bundle.with_name(".bundle.partial-abandoned") / "bundle"
    shutil.copytree(bundle, removed)
    with pytest.raises(BundleError, match="already holds a bundle"):
        write(bundle)
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_a_bundle_that_a_killed_writer_had_moved_aside_is_put_back(bundle: Path) -> None:
    (bundle / "mine").write_text("")
    abandoned = bundle.with_name(".bundle.partial-abandoned")
    abandoned.mkdir()
    bundle.rename(abandoned / "bundle.old")
    with pytest.raises(BundleError, match="already holds a bundle; pass another directory or"):
        write(bundle)
    assert (bundle / "mine").is_file()
    assert not abandoned.exists()
    write(bundle, overwrite=True)
    assert not (bundle / "mine").exists()


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_what_cannot_be_looked_into_of_another_writer_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """It was renamed into place that moment, or belongs to another user."""
    other, opened = tmp_path / ".bundle.partial-other", os.open
    other.mkdir()

    def refusing(path: str | Path, *arguments: int, **options: int) -> int:
        if path == other:
            raise error
        return opened(path, *arguments, **options)

    monkeypatch.setattr("hicom_edge.files.os.open", refusing)
    with BundleWriter(tmp_path / "bundle") as writer:
        assert writer.path.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == [other.name]


def test_a_bundle_being_replaced_is_not_touched_by_another_writer(bundle: Path) -> None:
    other = bundle.with_name(".bundle.partial-now")
    other.mkdir()
    bundle.rename(other / "bundle.old")
    with FileLock(other), BundleWriter(bundle):
        assert (other / "bundle.old").is_dir()


def test_a_path_that_no_engine_could_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/\? is not a path in UTF-8, .* write the bundle elsew"):
        write(tmp_path / os.fsdecode(b"\xfc"))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/bundle cannot be written \(.*; write the bundle e"):
        write(tmp_path / "file" / "bundle")


def test_what_was_made_at_the_place_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError, match="exists and is not a bundle"),
        BundleWriter(tmp_path / "bundle") as writer,
    ):
        for name, content in CONTENT.items():
            (writer.path / name).write_bytes(content)
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "letter").write_text("mine")
        writer.finish(manifest())
    assert [path.name for path in tmp_path.rglob("*")] == ["bundle", "letter"]


def test_a_manifest_that_would_not_open_is_not_written(tmp_path: Path) -> None:
    absurd = replace(manifest(), generation=GenerationSpec((1,), top_p=0.0))
    with (
        pytest.raises(
            BundleError, match=r"bundle/manifest.json: generation.top_p is 0.0, expected"
        ),
        BundleWriter(tmp_path / "bundle") as writer,
    ):
        writer.finish(absurd)
    assert list(tmp_path.iterdir()) == []


def test_a_mount_point_is_refused_at_once(tmp_path: Path) -> None:
    """Such as a container's volume, whose place no directory can take."""
    (tmp_path / "volume").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path / "volume")]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        with pytest.raises(InputError, match=r"volume is a mount point, .* a directory in it"):
            write(tmp_path / "volume")
        write(tmp_path / "volume" / "bundle")
    finally:
        subprocess.run(["umount", str(tmp_path / "volume")], check=True)


def test_the_bundle_behind_a_link_is_replaced_and_the_link_stays(bundle: Path) -> None:
    link = bundle.with_name("link")
    link.symlink_to(bundle)
    (bundle / "leftover").write_text("")
    write(link, overwrite=True)
    assert link.is_symlink()
    assert not (bundle / "leftover").exists()
    Bundle.open(link)


def test_the_current_directory_is_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(Path())
    monkeypatch.chdir(tmp_path)
    Bundle.open("here")


def test_an_existing_bundle_is_replaced_only_on_request(bundle: Path) -> None:
    with pytest.raises(BundleError, match="already holds a bundle; pass another directory or"):
        write(bundle)
    (bundle / "leftover").write_text("")
    write(bundle, overwrite=True)
    assert not (bundle / "leftover").exists()
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_a_foreign_directory_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        write(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "cat.png").exists()


def test_a_copied_bundle_opens(bundle: Path) -> None:
    copy = bundle.parent / "copy"
    shutil.copytree(bundle, copy)
    assert Bundle.open(copy).manifest == Bundle.open(bundle).manifest


@pytest.mark.parametrize(("frames", "tokens"), [(1, 113), (32, 680), (64, 1328), (128, 2624)])
def test_visual_tokens_are_those_of_the_paper(frames: int, tokens: int) -> None:
    assert replace(manifest().model, grid=(27, 27)).visual_tokens(frames) == tokens


def test_without_a_local_part_only_global_tokens_count() -> None:
    model = replace(manifest().model, temporal_kernel=0, spatial_kernel=(0, 0))
    assert model.visual_tokens(64) == model.global_tokens

"""Pixels: the authors' own values, bit for bit, and the same for every shape of frame."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hicom_edge.errors import InputError
from hicom_edge.runtime.preprocess import STRIP_PIXELS, Preprocessor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Reference:
    """The authors' arrays; a key that is not among them skips the case."""

    def __init__(self, folder: Path) -> None:
        paths = [folder / "images.json", folder / "images.npz"]
        if not all(path.is_file() for path in paths):
            pytest.skip("no images among the reference files")
        self.index: dict[str, Any] = json.loads(paths[0].read_text())
        self.arrays = np.load(paths[1])

    def has(self, *keys: str) -> bool:
        return all(key in self.arrays.files for key in keys)


@pytest.fixture(scope="module")
def reference() -> Reference:
    root = os.environ.get("HICOM_REFERENCE") or Path(__file__).parents[1] / "reference"
    return Reference(Path(root) / "preprocess")


def _frame(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _padded(frame: NDArray[np.uint8], colour: tuple[int, int, int]) -> Image.Image:
    """The plain form: paste on a whole square."""
    height, width = frame.shape[:2]
    side = max(height, width)
    square = Image.new("RGB", (side, side), colour)
    square.paste(Image.fromarray(frame), ((side - width) // 2, (side - height) // 2))
    return square


def _resized(
    image: Image.Image, columns: int, rows: int, method: Image.Resampling
) -> NDArray[np.uint8]:
    """Rows first, then columns, as the Pillow of the reference does; newer ones may swap them."""
    return np.asarray(image.resize((columns, image.height), method).resize((columns, rows), method))


BICUBIC = Image.Resampling.BICUBIC


def test_pixels_equal_the_authors_bit_for_bit(reference: Reference) -> None:
    checked = set()
    for case in reference.index["cases"]:
        if not reference.has(case["input"]):
            continue
        preprocess = Preprocessor(case["size"], aspect=case["mode"])
        frame = reference.arrays[case["input"]]
        values = preprocess(frame)
        assert values.dtype == np.float32
        assert hashlib.sha256(values.tobytes()).hexdigest() == case["pixel_values_sha256"], case
        if reference.has(case["resized_u8"]):
            resized = preprocess.resize(frame).transpose(2, 0, 1)
            np.testing.assert_array_equal(resized, reference.arrays[case["resized_u8"]])
        exact = case["resized_u8"].replace("u8/", "f32/")
        if reference.has(exact):
            np.testing.assert_array_equal(values, reference.arrays[exact])
        checked.add((case["mode"], np.sign(case["width"] - case["height"])))
    assert {("pad", 0), ("pad", 1), ("pad", -1), ("squash", 1), ("squash", -1)} <= checked


def test_padding_equals_the_authors_square(reference: Reference) -> None:
    squares = [key for key in reference.arrays.files if key.startswith("square/")]
    assert squares
    for key in squares:
        frame = reference.arrays[key.replace("square/", "in/")]
        square = reference.arrays[key]
        kept = Preprocessor(len(square)).resize(frame)  # at its own size nothing is resampled
        np.testing.assert_array_equal(kept, square)


@pytest.mark.parametrize("name", ["exact", "longer_than_num_frames", "none"])
def test_frames_in_memory_equal_the_authors(reference: Reference, name: str) -> None:
    frames = reference.arrays[f"video_in/{name}"]
    case = next(video for video in reference.index["videos"] if video["name"] == name)
    values = Preprocessor(case["size"], aspect=case["aspect_ratio"]).batch(frames)
    expected = reference.arrays[f"video_u8/{name}"]
    assert list(values.shape) == case["shape"]
    scaled = (expected.astype(np.float64) * (1 / 255)).astype(np.float32)
    np.testing.assert_array_equal(values, (scaled - np.float32(0.5)) / np.float32(0.5))


@settings(deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    size=st.integers(1, 60),
    mean=st.sampled_from([0.5, CLIP_MEAN]),
)
def test_padding_never_needs_the_whole_square(
    height: int, width: int, size: int, mean: Any
) -> None:
    preprocess = Preprocessor(size, mean=mean)
    frame = _frame(height, width)
    plain = _resized(_padded(frame, preprocess.background), size, size, BICUBIC)
    np.testing.assert_array_equal(preprocess.resize(frame), plain)


@pytest.mark.parametrize("shape", [(1080, 1920), (1920, 1080), (1, 9000), (9000, 1), (1300, 1300)])
def test_strips_leave_no_seam(shape: tuple[int, int]) -> None:
    frame = _frame(*shape)
    assert max(shape) ** 2 > STRIP_PIXELS
    padded = _resized(_padded(frame, (127, 127, 127)), 84, 84, BICUBIC)
    np.testing.assert_array_equal(Preprocessor(84).resize(frame), padded)
    squashed = _resized(Image.fromarray(frame), 84, 84, BICUBIC)
    np.testing.assert_array_equal(Preprocessor(84, aspect="squash").resize(frame), squashed)


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_every_filter_is_pillows(resample: Any) -> None:
    frame = _frame(50, 70)
    expected = _resized(Image.fromarray(frame), 32, 32, Image.Resampling[resample.upper()])
    resized = Preprocessor(32, resample=resample, aspect="squash").resize(frame)
    np.testing.assert_array_equal(resized, expected)


@settings(deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(1, 40))
def test_crop_is_the_centre_of_the_resized_frame(height: int, width: int, size: int) -> None:
    frame = _frame(height, width)
    short = min(height, width)
    rows, columns = int(size * height / short), int(size * width / short)
    whole = _resized(Image.fromarray(frame), columns, rows, BICUBIC)
    top, left = (rows - size) // 2, (columns - size) // 2
    expected = whole[top : top + size, left : left + size]
    resized = Preprocessor(size, aspect="crop").resize(frame)
    if rows > 16 * size:  # the rows that are cut away were never made
        assert np.abs(resized.astype(int) - expected.astype(int)).max() <= 1
    else:
        np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (40, 40), (41, 83)])
def test_crop_equals_clips_own_processor(shape: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": 36, "width": 36}
    )
    frame = _frame(*shape)
    expected = processor(Image.fromarray(frame), return_tensors="np")["pixel_values"][0]
    values = Preprocessor(36, CLIP_MEAN, CLIP_STD, aspect="crop")(frame)
    np.testing.assert_array_equal(values, np.asarray(expected))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9000), (9000, 1), (2, 3)])
@pytest.mark.parametrize("aspect", ["pad", "squash", "crop"])
def test_extreme_shapes_work(shape: tuple[int, int], aspect: Any) -> None:
    values = Preprocessor(28, aspect=aspect)(_frame(*shape))
    assert values.shape == (3, 28, 28)
    assert np.abs(values).max() <= 1.0


def test_a_batch_equals_its_frames_and_fills_the_given_array() -> None:
    preprocess = Preprocessor(20, CLIP_MEAN, CLIP_STD)
    frames = np.stack([_frame(30, 40, seed) for seed in range(3)])
    single = np.stack([preprocess(frame) for frame in frames])
    out = np.empty((3, 3, 20, 20), np.float32)
    assert preprocess.batch(frames, out) is out
    np.testing.assert_array_equal(out, single)
    np.testing.assert_array_equal(preprocess.batch(iter(frames)), single)
    np.testing.assert_array_equal(preprocess.batch(list(frames)), single)
    assert preprocess.batch(iter(())).shape == (0, 3, 20, 20)


@pytest.mark.parametrize(
    ("count", "message"),
    [(1, "out holds 1 frames, but more were given"), (3, "out holds 3 frames, but only 2")],
)
def test_a_batch_of_another_length_is_refused(count: int, message: str) -> None:
    out = np.empty((count, 3, 8, 8), np.float32)
    with pytest.raises(InputError, match=message):
        Preprocessor(8).batch([_frame(4, 4), _frame(4, 4)], out)


def test_a_batch_into_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"out has shape \(1, 3, 9, 9\).*expected \(t, 3, 8, 8\)"):
        Preprocessor(8).batch([_frame(4, 4)], np.empty((1, 3, 9, 9), np.float32))


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_not_a_frame_is_refused(frame: Any) -> None:
    with pytest.raises(InputError, match=r"a frame of shape .* expected \(h, w, 3\) of uint8"):
        Preprocessor(8)(frame)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aspect": "stretch"}, "aspect='stretch' is unknown; expected one of pad, squash, crop"),
        ({"resample": "box"}, "resample='box' is unknown; expected one of nearest, bilinear"),
        ({"size": 0}, "size=0 must be at least 1 pixel"),
        ({"std": (0.5, 0.0, 0.5)}, "must not be 0"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Preprocessor(**{"size": 8, **options})
    assert message in str(caught.value)

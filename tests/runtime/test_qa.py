"""The whole runtime on a real bundle: the authors' answers, one vision run, clear errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference_data import read_arrays, read_json

from hicom_edge import VideoQA
from hicom_edge.bundle import Bundle
from hicom_edge.errors import BundleError, EngineError, InputError, PromptError, VideoError
from hicom_edge.runtime import qa as qa_module
from hicom_edge.runtime.timings import WatchTimings
from hicom_edge.runtime.token_embedding import open_token_embedding
from hicom_edge.runtime.video import ReadingOptions

REFERENCES = ("small_release", "small_variants")


@pytest.fixture(scope="module")
def qa(reference_bundle: Bundle):
    with VideoQA.load(reference_bundle.path, engine="onnxruntime-cpu") as loaded:
        yield loaded


@pytest.fixture
def clip(qa: VideoQA):
    frames = np.random.default_rng(5).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)
    return qa.watch(frames)


def authors_cases() -> list[dict[str, Any]]:
    """Every case of the reference with one clip or image: the released settings and ten others."""
    cases = [c for name in REFERENCES for c in read_json(f"e2e/{name}.json")["cases"]]
    return [c for c in cases if "greedy_default" in c and c.get("frames") and c.get("prompt")]


@pytest.fixture(scope="module")
def qa_of(variant_bundle):
    """A function that opens the bundle of a variant once."""
    opened: dict[str, VideoQA] = {}

    def open_variant(name: str) -> VideoQA:
        if name not in opened:
            opened[name] = VideoQA(variant_bundle(name), "onnxruntime-cpu")
        return opened[name]

    yield open_variant
    for loaded in opened.values():
        loaded.close()


@pytest.mark.parametrize("case", authors_cases(), ids=lambda case: case["key"])
@pytest.mark.parametrize("penalty", [None, 1.0])
def test_answers_are_the_authors_token_for_token(qa_of, case, penalty, tmp_path: Path) -> None:
    qa = qa_of(case["key"].split("/")[0])
    expected = case["greedy_default" if penalty is None else "greedy_rep1"]
    answer = qa.ask(
        qa.watch(source_of(case, tmp_path)),
        case["prompt"],
        guide=case["guide_text"],
        max_new_tokens=len(expected["tokens"]),
        repetition_penalty=penalty,
    )
    assert list(answer.token_ids) == expected["tokens"]
    assert answer.text == expected["text"]
    assert answer.visual_tokens.shape[0] == case["num_visual_tokens"]
    assert answer.timings.prompt_tokens == case["prefill_len"]


def source_of(case: dict[str, Any], directory: Path) -> np.ndarray | Path:
    """The frames of a case: an array, or a picture when it is an image."""
    stored = {k: v for name in REFERENCES for k, v in read_arrays(f"e2e/{name}.npz").items()}
    frames: np.ndarray = stored[case["frames"]]
    if case["modal"] == "video":
        return frames
    Image.fromarray(frames[0]).save(directory / "image.png")
    return directory / "image.png"


def test_a_float16_bundle_sees_nearly_the_same(qa: VideoQA, variant_bundle, clip) -> None:
    frames = np.random.default_rng(5).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)
    exact = qa.ask(clip, "What is there?", max_new_tokens=1).visual_tokens
    with VideoQA(variant_bundle("release", dtype="fp16")) as half:
        tokens = half.ask(half.watch(frames), "What is there?", max_new_tokens=1).visual_tokens
    assert tokens.dtype == np.float16
    np.testing.assert_allclose(tokens, exact, atol=1e-2 * np.abs(exact).max())


def test_a_second_question_does_not_run_the_vision_tower(qa: VideoQA) -> None:
    clip = qa.watch(np.full((2, 30, 30, 3), 33, np.uint8))
    assert clip.timings.vision_ms > 0
    first = qa.ask(clip, "What is there?", max_new_tokens=3).timings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hicom_edge.runtime.stages.encode_frames", None)  # it would fail if it ran
        second = qa.ask(clip, "What is there?", max_new_tokens=3).timings
    counts = ("visual_tokens", "prompt_tokens", "reused_tokens", "new_tokens", "decode_steps")
    assert [getattr(first, name) for name in counts] == [getattr(second, name) for name in counts]
    times = ("guide_ms", "compress_ms", "prefill_ms", "generate_ms")
    assert all(getattr(one, name) > 0 for one in (first, second) for name in times)


def test_a_video_watched_again_is_not_encoded_again(qa: VideoQA) -> None:
    frames = np.full((3, 30, 30, 3), 77, np.uint8)
    first, second = qa.watch(frames), qa.watch(frames.copy())
    assert second.maps is first.maps
    assert (first.vision_reused, second.vision_reused) == (False, True)
    assert second.timings == WatchTimings()


def test_replaced_frames_are_remarked_on_whenever_a_clip_is_watched(
    qa: VideoQA, tmp_path: Path
) -> None:
    for number in range(4):
        Image.new("RGB", (30, 20), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    first, second = qa.watch(tmp_path, num_frames=4), qa.watch(tmp_path, num_frames=4)
    assert second.vision_reused
    assert first.remarks == second.remarks
    assert first.remarks[0].startswith("1 of 4 frames cannot be decoded; the nearest ones")
    with pytest.raises(VideoError, match=r"2\.png: cannot be read as an image"):
        qa.watch(tmp_path, num_frames=4, reading=ReadingOptions(strict=True))


def test_another_question_compresses_differently(qa: VideoQA, clip) -> None:
    tokens = [
        qa.ask(clip, text, max_new_tokens=1).visual_tokens for text in ("A red ball?", "A cat?")
    ]
    assert not np.allclose(tokens[0], tokens[1], atol=1e-3)


def test_the_guide_alone_decides_the_compression(qa: VideoQA, clip) -> None:
    one = qa.ask(clip, "What?", guide="a red ball", max_new_tokens=1).visual_tokens
    other = qa.ask(clip, "Who is there?", guide="a red ball", max_new_tokens=1).visual_tokens
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("num_frames", [1, 5, 9, 17])
def test_an_array_is_used_frame_for_frame_whatever_num_frames_says(qa, num_frames) -> None:
    frames = np.random.default_rng(num_frames).integers(
        0, 256, (num_frames, 20, 20, 3), dtype=np.uint8
    )
    clip = qa.watch(frames, num_frames=4)
    assert clip.num_frames == num_frames
    assert clip.patch_tokens == num_frames * 81


def test_frames_in_chunks_give_the_maps_of_frames_at_once(qa: VideoQA, monkeypatch) -> None:
    frames = np.random.default_rng(9).integers(0, 256, (11, 20, 20, 3), dtype=np.uint8)
    whole = qa.watch(frames).maps
    monkeypatch.setattr("hicom_edge.runtime.features.encoding.FRAMES_PER_RUN", 3)
    with VideoQA(qa.bundle, "onnxruntime-cpu", feature_store_bytes=0) as other:
        chunked = other.watch(frames).maps
        assert not other.watch(frames).vision_reused  # nothing is kept
    assert chunked is not whole
    np.testing.assert_allclose(chunked.features, whole.features, atol=1e-5)
    np.testing.assert_allclose(chunked.embeddings, whole.embeddings, atol=1e-5)


def test_a_stream_gives_the_same_text_piece_by_piece(qa: VideoQA, clip) -> None:
    whole = qa.ask(clip, "What is there?", max_new_tokens=8)
    stream = qa.stream(clip, "What is there?", max_new_tokens=8)
    pieces = list(stream)
    assert "".join(pieces) == whole.text
    assert len(pieces) > 1
    assert stream.answer.token_ids == whole.token_ids
    assert list(stream) == []


def test_an_answer_can_be_had_from_a_stream_read_halfway(qa: VideoQA, clip) -> None:
    stream = qa.stream(clip, "What is there?", max_new_tokens=8)
    next(iter(stream))
    assert stream.answer.token_ids == qa.ask(clip, "What is there?", max_new_tokens=8).token_ids


def test_a_closed_stream_has_no_answer(qa: VideoQA, clip) -> None:
    stream = qa.stream(clip, "What is there?", max_new_tokens=8)
    stream.close()
    with pytest.raises(InputError, match="this stream was closed before its answer was complete"):
        _ = stream.answer


def test_streams_that_are_read_in_turn_are_those_that_are_read_alone(qa: VideoQA, clip) -> None:
    questions = ("What is there?", "And here, what do you see in it?", "Why?")
    alone = [qa.ask(clip, question, max_new_tokens=8).token_ids for question in questions]
    streams = [qa.stream(clip, question, max_new_tokens=8) for question in questions]
    for _ in range(3):
        for stream in streams:
            next(stream)
    assert [stream.answer.token_ids for stream in streams] == alone


def test_a_seed_repeats_an_answer_and_drawing_differs_from_greedy(qa: VideoQA, clip) -> None:
    def ask(**options: Any) -> tuple[int, ...]:
        return qa.ask(clip, "What is there?", max_new_tokens=10, **options).token_ids

    drawn = ask(temperature=2.0, top_p=1.0, top_k=0, seed=3)
    assert drawn == ask(temperature=2.0, top_p=1.0, top_k=0, seed=3)
    assert drawn != ask()
    assert ask(temperature=2.0, top_k=1, seed=3, repetition_penalty=1.0) == ask(
        repetition_penalty=1.0
    )


def test_why_an_answer_ended_is_said(qa: VideoQA, clip) -> None:
    full = qa.ask(clip, "What is there?", max_new_tokens=6)
    assert full.finish_reason == "length"
    third = full.token_ids[2]
    spec = replace(qa.bundle.manifest.generation, stop_token_ids=(third,))
    bundle = replace(qa.bundle, manifest=replace(qa.bundle.manifest, generation=spec))
    with VideoQA(bundle, "onnxruntime-cpu") as other:
        stopped = other.ask(clip, "What is there?", max_new_tokens=6)
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == full.token_ids[: full.token_ids.index(third)]


def test_a_clip_of_another_bundle_is_refused(qa: VideoQA, clip) -> None:
    foreign = replace(clip.key, vision_graph="0" * 64)
    with pytest.raises(InputError, match="this clip was watched with another bundle"):
        qa.ask(replace(clip, key=foreign), "What?")


def test_a_clip_of_the_same_graph_with_other_weights_is_refused(qa, clip) -> None:
    manifest = qa.bundle.manifest
    weights = [name for name in manifest.files if name.startswith("vision.onnx.")]
    assert weights
    files = manifest.files | {n: replace(manifest.files[n], sha256="0" * 64) for n in weights}
    other = replace(qa.bundle, manifest=replace(manifest, files=files))
    with (
        VideoQA(other, "onnxruntime-cpu") as changed,
        pytest.raises(InputError, match="this clip was watched with another bundle"),
    ):
        changed.ask(clip, "What?")


@pytest.mark.parametrize("name", ["vision", "compressor", "decoder"])
def test_a_bundle_without_a_graph_that_is_needed_is_refused(reference_bundle, name) -> None:
    graphs = {k: v for k, v in reference_bundle.manifest.graphs.items() if k != name}
    lacking = replace(reference_bundle, manifest=replace(reference_bundle.manifest, graphs=graphs))
    with pytest.raises(BundleError, match=f"has no graph '{name}'"):
        VideoQA(lacking)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; pass 1 or more, a whole number"),
        ({"max_new_tokens": "3"}, "max_new_tokens is '3'"),
        ({"top_k": 5.0}, "top_k is 5.0"),
        ({"max_new_tokens": 40_000}, "the model's context is 32768"),
    ],
)
def test_options_that_do_not_fit_are_refused(qa: VideoQA, clip, options, message) -> None:
    with pytest.raises(PromptError, match=message):
        qa.ask(clip, "What?", **options)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "the question is empty; ask something about the video"),
        (" \n\t", "the question is empty"),
        (None, "the question is None; pass text"),
        (b"what", "the question is b'what'; pass text"),
        ("what \udcff is it", r"the question is not valid Unicode: '\\udcff' at character 5"),
    ],
)
def test_what_is_no_question_is_refused_before_the_work(qa: VideoQA, clip, question, message):
    with pytest.raises(PromptError, match=message):
        qa.stream(clip, question)


def test_what_is_no_guide_or_no_clip_is_refused_before_the_work(qa: VideoQA, clip) -> None:
    with pytest.raises(PromptError, match="the guide is 5; pass text"):
        qa.stream(clip, "What?", 5)
    with pytest.raises(InputError, match=r"a clip of type str was given; pass what watch\(\) ret"):
        qa.stream("kitchen.mp4", "What?")


@pytest.mark.parametrize("threads", ["2", 2.0, 0])
def test_threads_that_are_no_number_of_threads_are_refused(threads) -> None:
    with pytest.raises(InputError, match=f"threads is {threads!r}; pass 1 to 1024"):
        VideoQA.load(threads=threads)


def test_a_missing_video_is_refused(qa: VideoQA, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file or directory"):
        qa.watch(tmp_path / "missing.mp4")


def test_more_frames_than_the_context_holds_are_refused_before_the_vision_tower(
    reference_bundle: Bundle, monkeypatch
) -> None:
    model = replace(reference_bundle.manifest.model, max_context=100)
    frames = np.zeros((40, 8, 8, 3), np.uint8)
    small = replace(reference_bundle, manifest=replace(reference_bundle.manifest, model=model))
    with VideoQA(small) as qa:
        tokens = len(qa.ask(qa.watch(frames[:4]), "Who?", max_new_tokens=1).visual_tokens)
        assert tokens == model.visual_tokens(4)
        monkeypatch.setattr("hicom_edge.runtime.stages.encode_frames", None)
        with pytest.raises(
            InputError, match=r"40 frames make 122 visual tokens, which leave no ro"
        ):
            qa.watch(frames)


def test_num_frames_and_fps_exclude_each_other(qa: VideoQA, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exclude each other"):
        qa.watch(np.zeros((2, 4, 4, 3), np.uint8), num_frames=2, fps=1.0)


def test_without_a_path_the_demo_bundle_is_opened_or_asked_for(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(qa_module, "DEMO_BUNDLE", tmp_path / "absent")
    with pytest.raises(BundleError, match="carries no demo bundle; pass the directory"):
        VideoQA.load()


def test_an_unknown_engine_is_refused(reference_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="there is no engine 'abacus'"):
        VideoQA.load(reference_bundle.path, engine="abacus")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((3, 64), np.float32), r"has shape \(3, 64\), expected \(448, 64\)"),
        (np.zeros((448, 64), np.int64), "holds int64, expected float32 or float16"),
        (np.array([{}], dtype=object), "is not a NumPy array"),
    ],
)
def test_a_token_embedding_that_does_not_fit_is_refused(
    reference_bundle: Bundle, tmp_path: Path, table, message
) -> None:
    for name in reference_bundle.manifest.files:
        (tmp_path / name).symlink_to(reference_bundle.file(name))
    place = tmp_path / reference_bundle.manifest.token_embedding
    place.unlink()
    np.save(place, table, allow_pickle=True)
    with pytest.raises(BundleError, match=message):
        VideoQA(Bundle(tmp_path, reference_bundle.manifest))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01"])
def test_a_file_that_is_no_array_is_refused(
    reference_bundle: Bundle, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / reference_bundle.manifest.token_embedding).write_bytes(content)
    with pytest.raises(BundleError, match="is not a NumPy array"):
        open_token_embedding(Bundle(tmp_path, reference_bundle.manifest))


def test_a_manifest_that_asks_for_odd_frames_is_refused(reference_bundle: Bundle) -> None:
    frames = replace(reference_bundle.manifest.frames, resample="sinc")
    odd = replace(reference_bundle.manifest, frames=frames)
    with pytest.raises(BundleError, match=r"frames that cannot be made \(resample='sinc'"):
        VideoQA(Bundle(reference_bundle.path, odd))


def test_timings_add_up(qa: VideoQA, clip) -> None:
    timings = qa.ask(clip, "What is there?", max_new_tokens=6).timings
    parts = (timings.guide_ms, timings.compress_ms, timings.prefill_ms)
    assert all(part >= 0 for part in parts)
    assert timings.time_to_first_token_ms == pytest.approx(sum(parts))
    assert timings.tokens_per_second == pytest.approx(5000 / timings.generate_ms)
    assert (clip.num_frames, clip.patch_tokens, timings.new_tokens) == (5, 405, 6)


def test_a_window_goes_by_timestamps_or_by_the_authors_frame_numbers(tmp_path) -> None:
    from hicom_edge.shapes.clips import write_scene
    from hicom_edge.shapes.scene import sample_scene

    write_scene(sample_scene(0, "train", 1), tmp_path / "clip.mp4", side=84, num_frames=8)
    window = {"num_frames": 4, "start": 0.4, "end": 1.2}
    with VideoQA.load() as qa:
        by_time = qa.watch(tmp_path / "clip.mp4", **window)
        by_number = qa.watch(tmp_path / "clip.mp4", **window, rule="frame-numbers")
        with pytest.raises(InputError, match="rule is 'frames'; pass one of seconds, frame"):
            qa.watch(tmp_path / "clip.mp4", **window, rule="frames")
    # At 12 frames per second the authors take the middles of frames 3 to 13: 3 + 10 (2i + 1) / 8.
    assert (by_number.timestamps * 12).round().astype(int).tolist() == [4, 7, 9, 12]
    # By time they are on screen at 0.5, 0.7, 0.9 and 1.1 s.
    assert (by_time.timestamps * 12).round().astype(int).tolist() == [6, 8, 10, 13]

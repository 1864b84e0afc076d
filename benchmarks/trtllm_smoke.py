"""A real run of TensorRT-LLM: convert, build, answer, and compare with PyTorch token by token.

    python benchmarks/trtllm_smoke.py WORK [CHECKPOINT] [--trtllm-version 0.12|1.x]
    python benchmarks/trtllm_smoke.py WORK --prepare       # the first half alone

The first half exports the checkpoint (by default the demo's) into WORK and computes PyTorch's
answers; it needs the export extra and no GPU. The second half needs a GPU and TensorRT-LLM, and no
PyTorch model. If they need different environments, prepare in one and run the same command in the
other. A directory that was prepared with other options is prepared again. The last line of the
output is PASS, or FAIL after the differences. The exit status is 0 or 1, and 2 if something is
missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hicom_edge import VideoQA
from hicom_edge.bundle import Bundle
from hicom_edge.engines.tensorrt_llm.build import LlmBuildOptions, build_language_model
from hicom_edge.errors import HicomEdgeError

DEMO = Path(__file__).resolve().parent.parent / "demo" / "checkpoint"
QUESTIONS = ("What moves in this video?", "How many objects are there?")
# Greedy, then with a repetition penalty, which would show if the prompt's tokens counted.
PENALTIES = (1.0, 1.3)
FRAMES = 8


def main(arguments: list[str] | None = None) -> int:
    """Prepare if necessary, run, and print PASS or FAIL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="directory for bundle, clip and answers")
    parser.add_argument("checkpoint", nargs="?", default=str(DEMO))
    parser.add_argument("--trtllm-version", default="0.12", choices=["0.12", "1.x"])
    parser.add_argument("--quantization", help="in TensorRT-LLM's words, such as W8A16")
    parser.add_argument("--tp-size", type=int, default=1, help="GPUs that share every layer")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--prepare", action="store_true", help="stop before TensorRT-LLM")
    args = parser.parse_args(arguments)
    try:
        how = {"version": args.trtllm_version, "tp_size": args.tp_size}
        how["quantization"] = args.quantization
        if prepared_for(args.work) != purpose(args.checkpoint, args.max_new_tokens, how):
            prepare(args.work, args.checkpoint, args.max_new_tokens, how)
        return 0 if args.prepare else run(args.work)
    except (HicomEdgeError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def purpose(checkpoint: str, max_new_tokens: int, how: dict[str, Any]) -> dict[str, Any]:
    """The options of a prepared directory, without paths: the second half may run elsewhere."""
    return {"checkpoint": Path(checkpoint).name, "max_new_tokens": max_new_tokens, **how}


def prepared_for(work: Path) -> dict[str, Any] | None:
    """The options that the directory was prepared with, or None."""
    try:
        found = json.loads((work / "expected.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing or truncated
        return None
    return found.get("purpose") if isinstance(found, dict) else None


def prepare(work: Path, checkpoint: str, max_new_tokens: int, how: dict[str, Any]) -> None:
    """Write the bundle, a clip and PyTorch's greedy answers."""
    from hicom_edge.export.export_options import TensorRTLLMOptions
    from hicom_edge.export.exporter import export_bundle
    from hicom_edge.shapes.clips import write_scene
    from hicom_edge.shapes.scene import sample_scene

    work.mkdir(parents=True, exist_ok=True)
    (work / "expected.json").unlink(missing_ok=True)
    options = TensorRTLLMOptions(dtype="fp16", **how)
    exported = export_bundle(checkpoint, work / "bundle", language_model=options, overwrite=True)
    write_scene(sample_scene(0, "train", 0), work / "clip.mp4", side=168, num_frames=FRAMES)
    cases = pytorch_answers(exported.bundle, checkpoint, work / "clip.mp4", max_new_tokens)
    expected = {"purpose": purpose(checkpoint, max_new_tokens, how), "cases": cases}
    (work / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


def pytorch_answers(
    bundle: Bundle, checkpoint: str, clip: Path, max_new_tokens: int
) -> list[dict[str, Any]]:
    """The checkpoint's own answers in fp32."""
    import torch

    from hicom_edge.model.hicom import VIDEO_TOKEN_ID
    from hicom_edge.model.loading import load_checkpoint
    from hicom_edge.runtime.features.encoding import preprocessor_from_spec
    from hicom_edge.runtime.guide.text import guide_text
    from hicom_edge.runtime.guide.tokenizer import GuideTokenizer
    from hicom_edge.runtime.prompt import PromptBuilder
    from hicom_edge.runtime.video import FrameSampling, read_frames

    manifest, model = bundle.manifest, load_checkpoint(checkpoint)
    prompts = PromptBuilder(bundle)
    guides = GuideTokenizer(bundle) if manifest.guide is not None else None
    frames = read_frames(str(clip), FrameSampling(FRAMES))
    pixel_values = torch.from_numpy(preprocessor_from_spec(manifest.frames).batch(frames))
    cases = []
    for question in QUESTIONS:
        guide = None if guides is None else torch.from_numpy(guides.encode(guide_text(question)))
        visual_tokens = model.visual_tokens(pixel_values, guide)
        before, after = prompts.build(question)
        ids = torch.tensor([*before, VIDEO_TOKEN_ID, *after])
        for penalty in PENALTIES:
            tokens = model.generate(
                ids, [visual_tokens], max_new_tokens=max_new_tokens, repetition_penalty=penalty
            )
            stops = [i for i, t in enumerate(tokens) if t in manifest.generation.stop_token_ids]
            answer = tokens[: stops[0]] if stops else tokens
            case = {"question": question, "repetition_penalty": penalty, "token_ids": answer}
            cases.append({**case, "max_new_tokens": max_new_tokens})
    return cases


def run(work: Path) -> int:
    """Build the engine, ask the same questions, and compare."""
    cases = json.loads((work / "expected.json").read_text(encoding="utf-8"))["cases"]
    bundle = Bundle.open(work / "bundle")
    longest = max(case["max_new_tokens"] for case in cases)
    options = LlmBuildOptions(FRAMES, longest, max_batch_size=2)
    built = build_language_model(bundle, options, lambda line: print(line, file=sys.stderr))
    print(f"{built.path}: {built.size_bytes / 1e6:.1f} MB, {built.seconds:.1f} s")
    with VideoQA(bundle) as qa:
        clip = qa.watch(str(work / "clip.mp4"), num_frames=FRAMES)
        streams = [qa.stream(clip, **_question(case)) for case in cases]
        for stream in streams:
            next(stream, None)  # start all questions before the first is finished
        answers = [list(stream.answer.token_ids) for stream in streams]
    differences = [_difference(case, got) for case, got in zip(cases, answers, strict=True)]
    for line in filter(None, differences):
        print(line)
    failed = any(differences)
    print(
        "FAIL" if failed else f"PASS: {len(cases)} answers are equal to PyTorch's, token by token"
    )
    return int(failed)


def _question(case: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in case.items() if name != "token_ids"}


def _difference(case: dict[str, Any], got: list[int]) -> str | None:
    expected = case["token_ids"]
    if got == expected:
        return None
    same = next((i for i, (a, b) in enumerate(zip(expected, got)) if a != b), None)
    first = min(len(expected), len(got)) if same is None else same
    return (
        f"{case['question']!r}, penalty {case['repetition_penalty']}: token {first} differs\n"
        f"    PyTorch:      {expected}\n    TensorRT-LLM: {got}"
    )


if __name__ == "__main__":
    sys.exit(main())

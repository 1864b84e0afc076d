"""Accuracy of the demo bundle on held-out questions, answered from mp4 files by the runtime.

    python benchmarks/demo_accuracy.py [--questions 1000] [--seed 1000] [--bundle DIR]

The clips are generated (H.264) from seeds that training does not use, at the size that the bundle
was trained for. A second set asks about combinations of colour and shape that never occur in
training. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from hicom_edge import VideoQA
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.evaluation.scoring import Score, score_answers
from hicom_edge.shapes.held_out import HELD_OUT_SEED, write_held_out


def main() -> None:
    """Score both sets and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--bundle", help="by default the demo bundle of the package")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, VideoQA.load(args.bundle) as qa:
        results, trained = {}, qa.bundle.manifest.frames
        size = {"side": trained.image_size, "num_frames": trained.num_frames}
        for name, unseen in (("held-out", False), ("unseen combinations", True)):
            place = Path(directory) / name
            write_held_out(
                place, args.questions, unseen_combinations=unseen, seed=args.seed, **size
            )
            start = time.perf_counter()
            results[name] = scored(qa, place)
            seconds = time.perf_counter() - start
            print(f"{name}: {results[name].accuracy:.3f} of {args.questions} in {seconds:.0f} s")
            for kind, share in results[name].by_kind.items():
                print(f"    {kind:10} {share:.3f}")
    shares = {name: {"accuracy": s.accuracy, **s.by_kind} for name, s in results.items()}
    print(json.dumps({"benchmark": "demo_accuracy", "questions": args.questions, **shares}))


def scored(qa: VideoQA, directory: Path) -> Score:
    """Ask every question about its video file."""

    def answer(video: Path, question: str) -> str:
        return qa.ask(qa.watch(str(video)), question, max_new_tokens=12).text

    return score_answers(read_samples(directory), answer)


if __name__ == "__main__":
    main()

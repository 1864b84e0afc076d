"""Several questions about one video: the vision tower runs once.

python examples/several_questions.py VIDEO [BUNDLE]
"""

from __future__ import annotations

import sys

from hicom_edge import VideoQA

QUESTIONS = (
    "which way does the red circle move",
    "how many objects are there",
    "what shape is the red object",
)


def main(video: str, bundle: str | None = None) -> None:
    """Ask every question and say what it cost."""
    with VideoQA.load(bundle) as qa:
        for question in QUESTIONS:
            clip = qa.watch(video)
            answer = qa.ask(clip, question)
            vision = "kept" if clip.vision_reused else f"{clip.timings.vision_ms:.0f} ms"
            print(f"{question}? {answer.text}   (vision {vision})")


if __name__ == "__main__":
    main(*sys.argv[1:])

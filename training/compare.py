"""A comparison of compressors at equal visual tokens, equal steps and equal data.

Each row of each seed stores its result in a file. The same command continues an interrupted
comparison.

    python -m hicom_edge.training.compare runs/compare --seeds 0 1 2 --steps 300 300 1200
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from hicom_edge.files import replace_file
from hicom_edge.progress import Progress, no_progress
from hicom_edge.shapes.held_out import QUESTIONS_FILE, write_held_out
from hicom_edge.shapes.questions import KINDS
from hicom_edge.training.answering import evaluate_checkpoint
from hicom_edge.training.demo import train_demo
from hicom_edge.training.demo_options import DemoOptions, UseGuide

COMPRESSORS: dict[str, tuple[str, UseGuide]] = {
    "conditional": ("local43_guidedirect_global4_guidecoarse", "direct"),
    "conditional-released": ("local43_global4", "direct"),
    "unconditional": ("local43_global4", "off"),
    "resampler": ("resampler12", "off"),
    "average-pooling": ("avgpool423", "off"),
}
"""mm_projector_type and use_guide; all give 12 visual tokens from 8 frames of 6x6 patches.

"conditional" is the paper's mix of injections and the demo's, "conditional-released" that of the
released checkpoint, in which all global tokens are equal.
"""


@dataclass(frozen=True)
class Result:
    """Accuracies of one trained compressor.

    Attributes:
        unseen_combinations: accuracy on colour-shape pairs that never occur in training.
        wrong_guide: accuracy with the guide of another question; None without a guide.
    """

    row: str
    seed: int
    accuracy: float
    by_kind: dict[str, float]
    unseen_combinations: float
    wrong_guide: float | None


def compare(
    output: Path,
    options: DemoOptions,
    rows: Sequence[str],
    seeds: Sequence[int],
    *,
    questions: int = 1000,
    progress: Progress = no_progress,
) -> list[Result]:
    """Train and score every row for every seed; rows of a seed share clips and towers."""
    held_out, unseen = output / "held-out", output / "held-out-unseen"
    write_sets(held_out, unseen, options, questions)
    results = []
    for seed in seeds:
        for row in rows:
            kind, guide = COMPRESSORS[row]
            chosen = replace(options, seed=seed, projector_type=kind, use_guide=guide)
            place = output / f"seed{seed}" / row
            results.append(run_row(place, row, chosen, held_out, unseen, progress))
    return results


def write_sets(held_out: Path, unseen: Path, options: DemoOptions, questions: int) -> None:
    """Write both held-out sets, unless they exist."""
    for directory, is_unseen in ((held_out, False), (unseen, True)):
        if not (directory / QUESTIONS_FILE).exists():
            count = questions // 2 if is_unseen else questions
            write_held_out(
                directory,
                count,
                unseen_combinations=is_unseen,
                side=options.side,
                num_frames=options.frames,
            )


def run_row(
    place: Path, row: str, options: DemoOptions, held_out: Path, unseen: Path, progress: Progress
) -> Result:
    """Train and score one compressor, or read its stored result."""
    stored = place / "result.json"
    if stored.exists():
        return Result(**json.loads(stored.read_text()))
    towers = place.parent / "towers"
    checkpoint = train_demo(place, options, towers=towers, progress=progress)
    score = evaluate_checkpoint(checkpoint, held_out)
    guided = options.use_guide != "off"
    result = Result(
        row=row,
        seed=options.seed,
        accuracy=score.accuracy,
        by_kind=score.by_kind,
        unseen_combinations=evaluate_checkpoint(checkpoint, unseen).accuracy,
        wrong_guide=(
            evaluate_checkpoint(checkpoint, held_out, wrong_guide=True).accuracy if guided else None
        ),
    )
    replace_file(stored, json.dumps(asdict(result), indent=1))
    return result


def table(results: Sequence[Result]) -> str:
    """A Markdown table: mean and standard deviation over seeds, and the mean of every kind."""
    titles = ("compressor", "seeds", "right", *KINDS, "unseen combinations", "another guide")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in dict.fromkeys(result.row for result in results):
        group = [result for result in results if result.row == row]
        cells = [row, str(len(group)), _spread([r.accuracy for r in group])]
        for kind in KINDS:
            shares = [r.by_kind[kind] for r in group if kind in r.by_kind]
            cells.append(f"{mean(shares):.2f}" if shares else "-")
        wrong = [r.wrong_guide for r in group if r.wrong_guide is not None]
        cells.append(_spread([r.unseen_combinations for r in group]))
        cells.append(_spread(wrong) if wrong else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def described(options: DemoOptions, results: Sequence[Result]) -> dict[str, Any]:
    """The results with the options, the machine and the versions they were obtained with."""
    return {
        "format_version": 1,
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "av")},
        "options": asdict(options),
        "results": [asdict(result) for result in results],
    }


def _spread(values: Sequence[float]) -> str:
    text = f"{mean(values):.3f}"
    return text if len(values) < 2 else f"{text} ± {stdev(values):.3f}"


def _show_on_terminal(task: str, done: int, total: int, unit: str, /) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{task}: {done}/{total} {unit}s")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module: prints the table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=COMPRESSORS, default=list(COMPRESSORS))
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument(
        "--steps",
        type=int,
        nargs=3,
        metavar=("ALIGNMENT", "CONDITIONAL", "TUNING"),
        help="steps of each stage; default: those of the demo",
    )
    parser.add_argument(
        "--save", type=Path, help="write the results here, with hardware and versions"
    )
    given = parser.parse_args(arguments)
    options = DemoOptions()
    if given.steps:
        names = ("alignment_steps", "conditional_steps", "tuning_steps")
        options = replace(options, **dict(zip(names, given.steps, strict=True)))
    results = compare(
        given.output,
        options,
        given.rows,
        given.seeds,
        questions=given.questions,
        progress=_show_on_terminal,
    )
    print(table(results))
    document = described(options, results)
    print(json.dumps(document))
    if given.save:
        replace_file(given.save, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

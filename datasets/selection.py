"""Draws of samples: a subset that covers many videos, and a split that keeps videos apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.errors import InputError


def choose(samples: Sequence[Sample], count: int | None, seed: int) -> tuple[Sample, ...]:
    """`count` samples from as many videos as possible, grouped by video; all for None.

    No video is used twice before every video is used once. The draw depends on the seed and on the
    order of the samples, not on the location of the files.

    Raises:
        InputError: `count` is below 1.
    """
    if count is not None and count < 1:
        raise InputError(f"{count} samples were requested; pass 1 or more")
    rng = np.random.default_rng((seed, 1))
    groups = list(by_video(samples).values())
    groups = [groups[i] for i in rng.permutation(len(groups))]
    groups = [[group[i] for i in rng.permutation(len(group))] for group in groups]
    rounds = range(max(map(len, groups), default=0))
    round_robin = [group[i] for i in rounds for group in groups if i < len(group)]
    return tuple(s for group in by_video(round_robin[:count]).values() for s in group)


def split(
    samples: Sequence[Sample], held_out: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(calibration, held out): a share of the videos is held out, with all of their questions.

    Raises:
        InputError: the share is not between 0 and 1, or there are fewer than two videos.
    """
    if not 0 < held_out < 1:
        raise InputError(f"the held-out share is {held_out}; pass a number between 0 and 1")
    groups = list(by_video(samples).values())
    if len(groups) < 2:
        raise InputError(
            f"the samples are about {len(groups)} video(s), expected at least 2: one to calibrate "
            "on and one to measure quality on; pass more videos"
        )
    count = min(max(round(held_out * len(groups)), 1), len(groups) - 1)
    chosen = set(np.random.default_rng((seed, 2)).permutation(len(groups))[:count].tolist())
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for index, group in enumerate(groups):
        sides[index in chosen].extend(group)
    return tuple(sides[0]), tuple(sides[1])

"""Options of a calibration run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from hicom_edge.errors import InputError
from hicom_edge.option_fields import check_fields, option

RangeChoice = Literal["minmax", "entropy", "percentile", "mse"]
DecoderFormat = Literal["int8", "int4", "float"]
WeightMethod = Literal["awq", "round"]
Block = Literal[32, 64, 128]


@dataclass(frozen=True)
class CalibrationOptions:
    """Everything that decides a quantised bundle besides the float bundle and the data.

    Attributes:
        samples: questions to calibrate on.
        held_out: questions to measure the quality on; their videos are never calibrated on.
        seed: of the choice of samples and of the split.
        activations: how the range of an activation is chosen.
        decoder: "int8" (weights and activations), "int4" (weights alone, in blocks) or "float".
        weights: how INT4 weights are rounded: "awq", or "round" to nearest.
        block: input channels that share a scale in INT4.
        smoothing: SmoothQuant for INT8 graphs: "search" finds the alpha of every group, a number is
            the alpha of all, None leaves it out.
        lm_head: quantise the decoder's output layer, too, in 8 bits.
        keep: graphs that stay in floating point.
        target_agreement: leave the worst layers in floating point until this share of the
            answers is unchanged, judged on the samples; None quantises all layers.
        strict: stop at a video that is damaged or cannot be read, instead of replacing frames that
            cannot be decoded and skipping unreadable videos.
    """

    samples: int = option(128, "Maximum number of questions to calibrate on.", minimum=1)
    held_out: int = option(256, "Maximum number of questions to measure the quality on.", minimum=1)
    seed: int = option(0, "Seed of the choice of samples.", minimum=0)
    activations: RangeChoice = option("mse", "How the range of an activation is chosen.")
    decoder: DecoderFormat = option(
        "int8", "Decoder in INT8, in INT4 (weights only), or in floating point."
    )
    weights: WeightMethod = option("awq", "INT4: AWQ, or rounding to the nearest value.")
    block: Block = option(64, "INT4: input channels that share a scale; 32 on CPU and RTX only.")
    smoothing: float | Literal["search"] | None = option(
        "search",
        "SmoothQuant: search for the alpha of every group, use one alpha, or leave it out.",
        minimum=0,
        maximum=1,
        none_text="off",
    )
    lm_head: bool = option(False, "Quantise the output layer of the decoder too, to INT8.")
    keep: tuple[str, ...] = option((), "Graph to leave in floating point; repeatable.")
    target_agreement: float | None = option(
        None,
        "Leave the most sensitive layers in floating point until this share of the answers to the "
        "calibration questions is unchanged, for example 0.99.",
        minimum=0,
        maximum=1,
        default_means="quantise all layers",
    )
    strict: bool = option(
        False,
        "Stop at a damaged or unreadable video instead of replacing its lost frames or skipping "
        "it.",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.lm_head and self.decoder == "float":
            raise InputError(
                "lm_head is given, but the decoder stays in floating point; leave out lm_head or "
                "choose another decoder",
                "lm_head",
                "decoder",
            )

    @property
    def words(self) -> str:
        """The form in a word, for the name of the bundle: "int8" or "int8-int4"."""
        return {"int8": "int8", "int4": "int8-int4", "float": "int8-towers"}[self.decoder]

    @property
    def fingerprint(self) -> str:
        """Equal for equal options, different otherwise."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Existing:
    """Treatment of files that exist already.

    Attributes:
        overwrite: replace a bundle at the output.
        restart: discard an unfinished run with the same output.
    """

    overwrite: bool = option(False, "Replace an existing bundle.")
    restart: bool = option(False, "Delete an unfinished run and start again.")

    def __post_init__(self) -> None:
        check_fields(self)

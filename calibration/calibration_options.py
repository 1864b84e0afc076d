"""What a calibration run is asked to do, in one flat frozen dataclass.

It knows which values fit together. It does not know what is done with them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from hicom_edge.errors import InputError

METHODS = ("minmax", "entropy", "percentile", "mse")
DECODER_FORMATS = ("int8", "int4", "float")
WEIGHT_METHODS = ("awq", "round")
BLOCKS = (32, 64, 128)


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
    """

    samples: int = 128
    held_out: int = 256
    seed: int = 0
    activations: str = "mse"
    decoder: str = "int8"
    weights: str = "awq"
    block: int = 64
    smoothing: float | str | None = "search"
    lm_head: bool = False
    keep: tuple[str, ...] = ()
    target_agreement: float | None = None

    def __post_init__(self) -> None:
        _one_of("activations", self.activations, METHODS)
        _one_of("decoder", self.decoder, DECODER_FORMATS)
        _one_of("weights", self.weights, WEIGHT_METHODS)
        _one_of("block", self.block, BLOCKS)
        for name, value in (("samples", self.samples), ("held_out", self.held_out)):
            if value < 1:
                raise InputError(f"{name} is {value}, expected at least 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, expected 0 or above")
        if isinstance(self.smoothing, str):
            _one_of("smoothing", self.smoothing, ("search",))
        else:
            _share("smoothing", self.smoothing)
        _share("target_agreement", self.target_agreement)
        if self.lm_head and self.decoder == "float":
            raise InputError(
                "lm_head is to be quantised in a decoder that stays in floating point; leave one "
                "of both out"
            )

    @property
    def words(self) -> str:
        """The form in a word, for the name of the bundle: "int8" or "int8-int4"."""
        return {"int8": "int8", "int4": "int8-int4", "float": "int8-towers"}[self.decoder]

    @property
    def fingerprint(self) -> str:
        """Equal for equal options, different otherwise."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _share(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"{name} is {value}, expected a number from 0 to 1")


def _one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}, expected one of {', '.join(map(str, choices))}")

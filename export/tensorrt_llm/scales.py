"""Calibrated scales of a language model, read from a calibrated bundle.

`calibration/decoder_scales.safetensors` (float32) holds `<linear>.smoothing` (in) and
`<linear>.input_amax` () under a checkpoint's tensor names, and `<layer>.self_attn.qkv_amax` ().
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hicom_edge.bundle import Bundle
from hicom_edge.errors import BundleError, ExportError
from hicom_edge.model.checkpoint import Checkpoint

SCALES_FILE = "calibration/decoder_scales.safetensors"
_AGAIN = "calibrate this checkpoint's bundle again"


@dataclass(frozen=True)
class DecoderScales:
    """The scales of one file: vectors and scalars, at most a few megabytes."""

    path: Path
    tensors: dict[str, Tensor]

    @classmethod
    def open(cls, path: Path, checkpoint: Checkpoint) -> DecoderScales:
        """Open the scales of a calibrated bundle, or the file itself.

        Raises:
            BundleError: not a bundle, or one without scales.
            ExportError: the bundle comes from another checkpoint.
        """
        file = _file_in_bundle(path, checkpoint) if path.is_dir() else path
        try:
            return cls(file, load_file(file))
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{file} cannot be read as scales ({error}); {_AGAIN}") from error

    def smoothing(self, linears: Sequence[str], in_features: int) -> Tensor:
        """The factors s (in) that linears with one input share, float32.

        Raises:
            ExportError: missing, misshapen, not positive, or not shared.
        """
        first, *others = (self._tensor(f"{name}.smoothing", (in_features,)) for name in linears)
        if any(not torch.equal(first, other) for other in others):
            raise ExportError(
                f"{self.path}: {', '.join(linears)} have one input but different smoothing; "
                f"{_AGAIN}"
            )
        return first

    def input_amax(self, linears: Sequence[str]) -> float:
        """The largest |x / s| at the input of linears that share it."""
        return max(float(self._tensor(f"{name}.input_amax", ())) for name in linears)

    def qkv_amax(self, layer: str) -> float:
        """The largest |output| of a layer's q, k and v projections."""
        return float(self._tensor(f"{layer}.self_attn.qkv_amax", ()))

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        stored = self.tensors.get(name)
        if stored is None or tuple(stored.shape) != shape:
            found = "nothing" if stored is None else f"shape {tuple(stored.shape)}"
            raise ExportError(
                f"{self.path} has {found} for {name}, expected shape {shape}; {_AGAIN}"
            )
        values = stored.float()
        if not (torch.isfinite(values) & (values > 0)).all():
            raise ExportError(f"{self.path}: {name} is not positive throughout; {_AGAIN}")
        return values


def _file_in_bundle(path: Path, checkpoint: Checkpoint) -> Path:
    bundle = Bundle.open(path)
    if SCALES_FILE not in bundle.manifest.files:
        raise BundleError(
            f"{path} has no {SCALES_FILE}; pass a bundle whose decoder hicom-edge calibrate "
            "quantised to int8 or int4"
        )
    if bundle.manifest.provenance.checkpoint_sha256 != checkpoint.sha256():
        raise ExportError(
            f"the scales of {path} were measured on another checkpoint than "
            f"{checkpoint.directory}; {_AGAIN}"
        )
    return bundle.file(SCALES_FILE)

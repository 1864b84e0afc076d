"""HDR frames (PQ and HLG, BT.2020) as the SDR pictures (BT.709) that models are trained on.

By tables and a 3x3 matrix: transfer function, primaries, a curve that leaves everything up to two
thirds of the reference white alone and compresses what is brighter, gamma.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.runtime.video.source import UInt8Array

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Float32Array = NDArray[np.float32]

PQ, HLG = 16, 18
"""FFmpeg's numbers of SMPTE ST 2084 and ARIB STD-B67 (AVCOL_TRC)."""
NAMES = {PQ: "PQ", HLG: "HLG"}

REFERENCE_WHITE_NITS = 203.0  # ITU-R BT.2408
PEAK_NITS = 1000.0
KNEE = 2 / 3
DISPLAY_GAMMA = 2.4  # ITU-R BT.1886

_BT709_FROM_BT2020 = np.array(
    [
        [1.660491, -0.587641, -0.072850],
        [-0.124550, 1.132900, -0.008349],
        [-0.018151, -0.100579, 1.118730],
    ],
    np.float32,
)
_ROWS = 16
_LEVELS = 4096
"""Steps of the tables; the input has 10 or 12 bits."""


def hdr_name(frame: VideoFrame) -> str | None:
    """ "PQ" or "HLG", or None for a frame of ordinary range."""
    return NAMES.get(int(frame.color_trc))


def sdr_rgb(frame: VideoFrame) -> UInt8Array:
    """(h, w, 3) uint8 RGB of an HDR frame, tone-mapped."""
    coded = np.asarray(frame.to_ndarray(format="rgb48le"), np.uint16)
    pixels = np.empty(coded.shape, np.uint8)
    for top in range(0, len(coded), _ROWS):  # few at once, so that they stay in the cache
        rows = slice(top, top + _ROWS)
        pixels[rows] = _mapped(coded[rows] >> 4, int(frame.color_trc))
    return pixels


def _mapped(coded: NDArray[Any], transfer: int) -> UInt8Array:
    """Rows of RGB in 12 bits (h, w, 3), tone-mapped to 8 bits."""
    light = np.take(_light_table(transfer), coded)  # in reference whites
    light = np.maximum(_in_bt709(light), 0)
    brightest = light.max(axis=-1, keepdims=True)
    light *= _compressed(brightest) / np.maximum(brightest, np.float32(1e-6))
    steps = np.clip(light * (_LEVELS - 1) + 0.5, 0, _LEVELS - 1).astype(np.uint16)
    pixels: UInt8Array = np.take(_gamma_table(), steps)
    return pixels


def _in_bt709(light: Float32Array) -> Float32Array:
    """(h, w, 3) from BT.2020's primaries. Term by term: a matrix product rounds as its CPU does."""
    red, green, blue = (light[..., channel] for channel in range(3))
    mixed = [red * row[0] + green * row[1] + blue * row[2] for row in _BT709_FROM_BT2020]
    return np.stack(mixed, axis=-1)


def _compressed(light: Float32Array) -> Float32Array:
    """Up to the knee as it is; above, towards 1 at the peak."""
    above = np.maximum(light - KNEE, 0) / (1 - KNEE)
    peak = (PEAK_NITS / REFERENCE_WHITE_NITS - KNEE) / (1 - KNEE)
    rolled = KNEE + (1 - KNEE) * above * (1 + above / peak**2) / (1 + above)
    return np.where(light <= KNEE, light, np.minimum(rolled, 1)).astype(np.float32)


@lru_cache(maxsize=2)
def _light_table(transfer: int) -> Float32Array:
    """Light of each coded value, in reference whites: (4096,) float32."""
    coded = np.arange(_LEVELS) / (_LEVELS - 1)
    nits = _pq_nits(coded) if transfer == PQ else _hlg_nits(coded)
    return (nits / REFERENCE_WHITE_NITS).astype(np.float32)


def _pq_nits(coded: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084, equation 4.1."""
    m1, m2 = 2610 / 16384, 2523 / 32
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    power = coded ** (1 / m2)
    return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _hlg_nits(coded: NDArray[np.float64]) -> NDArray[np.float64]:
    """ARIB STD-B67 on a display of 1000 nits, whose system gamma of 1.2 acts on each channel."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    return PEAK_NITS * np.minimum(scene, 1) ** 1.2


@lru_cache(maxsize=1)
def _gamma_table() -> UInt8Array:
    light = np.arange(_LEVELS) / (_LEVELS - 1)
    return np.round(255 * light ** (1 / DISPLAY_GAMMA)).astype(np.uint8)

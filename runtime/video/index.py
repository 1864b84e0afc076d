"""Which frames a video file holds, found by reading packets without decoding them.

Knows packets, timestamps and keyframes. Refuses to trust a header's frame count, and decodes
nothing. An hour at 30 frames per second costs 1.9 MB while reading
and 0.9 MB afterwards.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hicom_edge.runtime.video.frame_sampling import Int64Array

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

BoolArray = NDArray[np.bool_]

NO_TIMESTAMP = -(2**63)


@dataclass(frozen=True, eq=False)
class PacketScan:
    """Every packet of one video stream, in file (decoding) order.

    pts, dts: (p,) int64 in the stream's time base, NO_TIMESTAMP where absent. keyframe: (p,) bool.
    shown: (p,) bool, False for frames outside an edit list and for hidden references.
    cut_short: reading ended at an error or at an incomplete packet.
    """

    pts: Int64Array
    dts: Int64Array
    keyframe: BoolArray
    shown: BoolArray
    cut_short: bool

    def __len__(self) -> int:
        return len(self.pts)


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Frame numbers in presentation order.

    pts: (n,) int64, strictly ascending. keyframes: (k,) int64 frame numbers, ascending, from which
    decoding can start; keyframe_dts: (k,) int64 where they lie in the file.
    """

    pts: Int64Array
    keyframes: Int64Array
    keyframe_dts: Int64Array

    def __len__(self) -> int:
        return len(self.pts)

    def number_of(self, pts: int | None) -> int | None:
        """The frame number with this timestamp, or None for one that is not counted as a frame."""
        if pts is None:
            return None
        number = int(np.searchsorted(self.pts, pts))
        return number if number < len(self.pts) and self.pts[number] == pts else None

    def keyframe_before(self, number: int) -> int | None:
        """Position in ``keyframes`` of the last one at or before frame ``number``, if any."""
        after = int(np.searchsorted(self.keyframes, number, side="right"))
        return after - 1 if after else None


def scan_packets(container: InputContainer, stream: VideoStream) -> PacketScan:
    """Read all packets of ``stream`` to the end of the file; nothing is decoded."""
    import av

    pts, dts = array("q"), array("q")
    keyframe, shown = bytearray(), bytearray()
    cut_short = False
    may_hide = stream.codec_context.name == "vp8"
    try:
        for packet in container.demux(stream):
            if packet.size == 0:  # drains the decoder
                continue
            if packet.is_corrupt:
                cut_short = True
                continue
            pts.append(NO_TIMESTAMP if packet.pts is None else packet.pts)
            dts.append(NO_TIMESTAMP if packet.dts is None else packet.dts)
            keyframe.append(packet.is_keyframe)
            shown.append(not (packet.is_discard or (may_hide and _is_hidden_vp8(packet))))
    except av.error.FFmpegError:
        cut_short = True
    return PacketScan(
        np.array(pts, np.int64),
        np.array(dts, np.int64),
        np.frombuffer(bytes(keyframe), np.bool_),
        np.frombuffer(bytes(shown), np.bool_),
        cut_short,
    )


def index_from_scan(scan: PacketScan) -> FrameIndex | None:
    """Number the shown frames by their timestamps, from the first keyframe on.

    None when the timestamps cannot carry that: absent, repeated or running backwards, or a stream
    without a keyframe. Such a stream has to be decoded to be counted.
    """
    if not scan.keyframe.any() or (scan.pts == NO_TIMESTAMP).any():
        return None
    key_pts, key_dts = scan.pts[scan.keyframe], scan.dts[scan.keyframe]
    # Frames stored before the first keyframe, or shown before it, lean on what the file lacks.
    decodable = np.arange(len(scan)) >= np.argmax(scan.keyframe)
    pts = np.sort(scan.pts[decodable & scan.shown & (scan.pts >= key_pts[0])])
    if (np.diff(pts) <= 0).any() or (np.diff(key_pts) <= 0).any():
        return None
    # A skip aims at a frame that is shown; the first of all needs none.
    usable = scan.shown[scan.keyframe]
    key_pts, key_dts = key_pts[usable], key_dts[usable]
    key_dts = np.where(key_dts == NO_TIMESTAMP, key_pts, key_dts)
    return FrameIndex(pts, np.searchsorted(pts, key_pts).astype(np.int64), key_dts)


def _is_hidden_vp8(packet: Packet[VideoStream]) -> bool:
    """True for an alternate reference frame, which is never shown (RFC 6386, section 9.1)."""
    return not bytes(packet)[0] >> 4 & 1

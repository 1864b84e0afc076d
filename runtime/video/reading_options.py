"""How a source is opened and turned into frames, beside the choice of the frames."""

from __future__ import annotations

from dataclasses import dataclass

from hicom_edge.option_fields import check_fields, option
from hicom_edge.runtime.video.access import checked_protocols


@dataclass(frozen=True)
class ReadingOptions:
    """Options of reading; the defaults suit one's own videos and URLs.

    allow_protocols: protocols of FFmpeg, such as ("file", "http"), that a source and the files it
        names may be read by. By default a playlist, concat list or SDP file is refused, unless it
        is an HLS playlist at a URL, and so is a URL of an unusual protocol.
    strict: refuse a source that is damaged, instead of replacing frames that cannot be decoded by
        the nearest that can and reading what is left of a truncated file.

    deinterlace: show the top field of each frame at full height, for interlaced video.
    tone_map: bring HDR video (PQ, HLG) to the ordinary range.

    Raises InputError for a name that is no protocol's.
    """

    allow_protocols: tuple[str, ...] = option(
        (),
        "FFmpeg protocols by which the source, and what a playlist names, may be read, such as "
        "file,http.",
    )
    strict: bool = option(
        False, "Refuse a damaged source instead of replacing frames that cannot be decoded."
    )
    deinterlace: bool = option(False, "Show one field of each frame, for interlaced video.")
    tone_map: bool = option(False, "Bring HDR video (PQ, HLG) to the ordinary range.")

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "allow_protocols", checked_protocols(self.allow_protocols))


DEFAULT_READING = ReadingOptions()

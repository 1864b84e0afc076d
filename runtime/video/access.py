"""Formats and protocols that FFmpeg may use to read a source.

FFmpeg opens whatever a playlist, a concat list or an SDP file names: other files, other hosts. A
source is therefore opened with two white lists. A format that names other sources is on the list
only where that is expected (an HLS playlist at a URL) or allowed by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

from hicom_edge.errors import InputError, VideoError

VIDEO_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,kux,asf,asf_o,ogg,rm,"
    "ivr,nut,mxf,gxf,lxf,dv,wtv,nsv,nuv,pva,pmp,ty,vivo,vividas,swf,smjpeg,mjpeg,mjpeg_2000,"
    "mpjpeg,ivf,obu,av1,h261,h263,h264,hevc,vvc,evc,vc1,vc1test,m4v,mpegvideo,mpegtsraw,"
    "cavsvideo,avs2,avs3,dirac,dnxhd,apv,ipu,rawvideo,yuv4mpegpipe,v210,v210x,bitpacked,ffm,"
    "cine,r3d,mlv,dhav,hxvs,ifv,iv8,luodat,lvf,lmlm4,mxg,nc,ingenient,simbiosis_imx,ser,mtv,"
    "flic,bink,smk,roq,ipmovie,idcin,rl2,film_cpk,thp,vmd,wc3movie,4xm,ea,anm,cdxl,dxa,gdv,"
    "hnm,usm,xmv,moflex,mods,filmstrip"
)
PICTURE_FORMATS = (
    "gif,gif_pipe,apng,image2,image2pipe,bmp_pipe,cri_pipe,dds_pipe,dpx_pipe,exr_pipe,"
    "gem_pipe,hdr_pipe,j2k_pipe,jpeg_pipe,jpegls_pipe,jpegxl_anim,jpegxl_pipe,jpegxs_pipe,"
    "pam_pipe,pbm_pipe,pcx_pipe,pfm_pipe,pgm_pipe,pgmyuv_pipe,pgx_pipe,phm_pipe,photocd_pipe,"
    "pictor_pipe,png_pipe,ppm_pipe,psd_pipe,qdraw_pipe,qoi_pipe,sgi_pipe,sunrast_pipe,"
    "tiff_pipe,webp_pipe,xbm_pipe,xpm_pipe,xwd_pipe,ico,fits"
)
OTHER_FORMATS = (
    "aac,ac3,eac3,mp3,flac,wav,aiff,au,caf,w64,amr,ape,dts,dtshd,truehd,tta,wv,webvtt,srt,tty"
)
"""Audio beside the video of an HLS playlist, and what is refused with a message of its own."""

SELF_CONTAINED = f"{VIDEO_FORMATS},{PICTURE_FORMATS},{OTHER_FORMATS}"

NAMING_FORMATS = "hls,concat,sdp,dash,sap"
"""Formats whose files name other files or hosts."""

_HTTP = ("http", "https", "httpproxy", "tcp", "tls", "crypto", "data")
_RTP = ("rtp", "srtp", "udp", "tcp", "tls")
_RTMP = ("rtmp", "rtmps", "rtmpt", "rtmpts", "rtmpe", "tcp", "tls", "http", "https", "ffrtmphttp")
PROTOCOLS_OF_SCHEME = {
    "http": _HTTP,
    "https": _HTTP,
    "rtsp": (*_RTP, *_HTTP),
    "rtsps": (*_RTP, *_HTTP),
    "rtmp": _RTMP,
    "rtmps": _RTMP,
    "rtp": _RTP,
    "srt": ("srt", "udp"),
    "udp": ("udp",),
    "tcp": ("tcp",),
    "file": ("file",),
}
"""For each scheme that is open without asking, the protocols FFmpeg needs to read it."""

FORMATS_OF_SCHEME = {
    "http": "hls",
    "https": "hls",
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "rtp": "rtp,rtsp",
}
"""Formats that a scheme adds to the self-contained ones."""

_HEADS = {
    b"#EXTM3U": "a playlist (HLS)",
    b"ffconcat version": "a concat list",
    b"v=0": "a session description (SDP)",
    b"<MPD": "a playlist (DASH)",
    b"<?xml": "an XML document",
}


@dataclass(frozen=True)
class Access:
    """White lists for one open: FFmpeg's own names, separated by commas."""

    formats: str
    protocols: str

    @property
    def options(self) -> dict[str, str]:
        """As options of FFmpeg's demuxers; image2 must not take a name for a pattern of names."""
        return {
            "format_whitelist": self.formats,
            "protocol_whitelist": self.protocols,
            "pattern_type": "none",
        }


def access_to(location: str, allow_protocols: tuple[str, ...] = ()) -> Access:
    """What may be opened for a path or URL.

    allow_protocols: FFmpeg protocols, such as ("file", "http"), that the source and whatever it
        names may be read by; with any of them, playlists, concat lists and SDP files are opened.

    Raises VideoError for a URL whose protocol is neither usual nor allowed.
    """
    scheme = scheme_of(location)
    usual = PROTOCOLS_OF_SCHEME.get(scheme)
    if usual is None and scheme not in allow_protocols:
        raise VideoError(
            f"{location.split('://', 1)[0]}://...: the protocol {scheme!r} is not opened; expected "
            f"{', '.join(PROTOCOLS_OF_SCHEME)} or a path (allow others with allow_protocols)",
            "allow_protocols",
        )
    formats = [SELF_CONTAINED, FORMATS_OF_SCHEME.get(scheme, "")]
    if allow_protocols:
        formats.append(NAMING_FORMATS)
    implied = [name for given in allow_protocols for name in PROTOCOLS_OF_SCHEME.get(given, ())]
    protocols = dict.fromkeys((*(usual or ()), *allow_protocols, *implied))
    return Access(",".join(filter(None, formats)), ",".join(protocols))


_PROTOCOL_NAMES = (
    "async,bluray,cache,concat,concatf,crypto,data,dtls,fd,ffrtmpcrypt,ffrtmphttp,file,ftp,"
    "gopher,gophers,hls,http,httpproxy,https,icecast,ipfs_gateway,ipns_gateway,mmsh,mmst,"
    "pipe,prompeg,rist,rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,rtp,rtsp,rtsps,sftp,smb,srt,"
    "srtp,subfile,tcp,tls,udp,udplite,unix,zmq"
)
PROTOCOLS = frozenset(_PROTOCOL_NAMES.split(","))
"""What `allow_protocols` may name: the protocols that FFmpeg reads by, and RTSP's schemes."""


def checked_protocols(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, each of which may be several with commas. Raises InputError for others."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"allow_protocols={names!r} must be a tuple of names, such as ('file',)",
            "allow_protocols",
        )
    single = tuple(part.strip() for name in names for part in name.split(","))
    for name in single:
        if name not in PROTOCOLS:
            raise InputError(
                f"allow_protocols names {name!r}; expected names of FFmpeg's protocols, such as "
                "file, http or smb",
                "allow_protocols",
            )
    return single


def scheme_of(location: str) -> str:
    """The scheme of a URL in lower case; "file" for a path."""
    return location.split("://", 1)[0].lower() if "://" in location else "file"


def names_others(head: bytes) -> str | None:
    """What the first bytes of a file say it is, where that names other files or hosts."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((what for start, what in _HEADS.items() if text.startswith(start)), None)

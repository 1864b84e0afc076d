"""What FFmpeg may open for a source: the source itself, and nothing that it names."""

from __future__ import annotations

import ast
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

import hicom_edge
from hicom_edge.errors import InputError, VideoError
from hicom_edge.runtime.video import FrameSampling, ReadingOptions, read_frames
from hicom_edge.runtime.video.access import access_to

ROOT = Path(hicom_edge.__file__).parent
TWO = FrameSampling(num_frames=2)
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
SESSION = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A TS file of ten frames beside which the files that name it are written."""
    path = tmp_path / "clip.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for level in range(10):
            picture = np.full((64, 64, 3), level * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The folder at a loopback address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    handler = partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("list.m3u8", PLAYLIST, r"a playlist \(HLS\)"),
        ("list.ffconcat", "ffconcat version 1.0\nfile {}\n", "a concat list"),
        ("list.mp4", "ffconcat version 1.0\nfile {}\n", "a concat list"),
        ("list.txt", "ffconcat version 1.0\nfile {}\n", "a concat list"),
        ("camera.sdp", SESSION, r"a session description \(SDP\)"),
    ],
)
def test_a_file_that_names_others_is_refused(clip: Path, name: str, text: str, kind: str) -> None:
    (clip.parent / name).write_text(text.format(clip.name))
    with pytest.raises(VideoError, match=f"is {kind}, which names other files.*allow_protocols"):
        read_frames(clip.parent / name, TWO)


@pytest.mark.parametrize("name", ["list.m3u8", "list.txt"])
def test_an_allowed_protocol_opens_what_a_file_names(clip: Path, name: str) -> None:
    text = PLAYLIST if name.endswith("m3u8") else "ffconcat version 1.0\nfile {}\n"
    (clip.parent / name).write_text(text.format(clip.name))
    frames = read_frames(clip.parent / name, TWO, reading=ReadingOptions(("file",)))
    assert frames.num_available == 10


def test_a_playlist_reaches_no_host_by_an_allowance_for_files(
    clip: Path, served: tuple[str, list[str]]
) -> None:
    address, asked = served
    (clip.parent / "list.m3u8").write_text(PLAYLIST.format(f"{address}/{clip.name}"))
    with pytest.raises(VideoError, match=r"the allowed protocols \(file\)"):
        read_frames(clip.parent / "list.m3u8", TWO, reading=ReadingOptions(("file",)))
    assert asked == []
    allowed = ReadingOptions(("file", "http"))
    assert read_frames(clip.parent / "list.m3u8", TWO, reading=allowed).num_available == 10
    assert asked


def test_a_playlist_at_a_url_is_watched(clip: Path, served: tuple[str, list[str]]) -> None:
    (clip.parent / "list.m3u8").write_text(PLAYLIST.format(clip.name))
    assert read_frames(f"{served[0]}/list.m3u8", TWO).num_available == 10


def test_a_playlist_at_a_url_names_no_local_file(clip: Path, served: tuple[str, list[str]]) -> None:
    (clip.parent / "list.m3u8").write_text(PLAYLIST.format(clip.as_uri()))
    with pytest.raises(VideoError, match=r"list\.m3u8"):
        read_frames(f"{served[0]}/list.m3u8", TWO)


@pytest.mark.parametrize("url", ["concat://{}", "subfile,,start,0,end,9,,://{}", "lavfi://{}"])
def test_an_unusual_protocol_is_refused_by_name(clip: Path, url: str) -> None:
    scheme = url.split("://", 1)[0]
    with pytest.raises(VideoError, match=f"the protocol '{scheme}' is not opened; expected http"):
        read_frames(url.format(clip), TWO)


def test_an_unusual_protocol_can_be_allowed(clip: Path) -> None:
    access = access_to(f"concat://{clip}", ("concat", "file"))
    assert set(access.protocols.split(",")) == {"concat", "file"}


def test_a_name_with_a_pattern_is_one_picture(tmp_path: Path) -> None:
    from PIL import Image

    for name, colour in (("a%03d.ppm", "red"), ("a001.ppm", "blue"), ("a002.ppm", "blue")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / name)
    frames = read_frames(tmp_path / "a%03d.ppm", FrameSampling(num_frames=1))
    assert frames.num_available == 1
    assert next(iter(frames))[0, 0].tolist() == [255, 0, 0]


def test_names_may_be_joined_by_commas() -> None:
    assert ReadingOptions(("file,http", "tcp")).allow_protocols == ("file", "http", "tcp")


@pytest.mark.parametrize("names", ["file", ("no such",), (1,), ("file,",), ("nonsense",)])
def test_names_that_are_no_protocols_are_refused(names: object) -> None:
    with pytest.raises(InputError, match="allow_protocols"):
        ReadingOptions(names)  # type: ignore[arg-type]


def test_only_one_module_opens_containers_for_reading() -> None:
    """Every other module gets the white lists by going through it."""
    found = set()
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    others = {"tests", "benchmarks", "examples", "docker", "build", "dist"}
    package = [folder for folder in folders if folder.name not in others]
    for path in (path for folder in package for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "av.open",
                "av.container.open",
            }:
                writes = len(node.args) > 1 and ast.unparse(node.args[1]) == "'w'"
                if not writes:
                    found.add(str(path.relative_to(ROOT)))
    assert found == {"runtime/video/opening.py"}

"""URLs: files whatever their server can do, streams by their behaviour, and nothing stale."""

from __future__ import annotations

import http.server
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hicom_edge.errors import InputError, VideoError
from hicom_edge.runtime.video import FrameSampling, download, http_reply, live, read_frames
from hicom_edge.runtime.video import recording as recordings

FOUR = FrameSampling(num_frames=4)
Reply = Callable[[http.server.BaseHTTPRequestHandler], None]


def write_clip(path: Path, levels: range, *, gop: int = 5) -> Path:
    """A clip of greys at 10 frames per second, one for each level."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, 0
        for level in levels:
            picture = np.full((48, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def levels_of(source: str | Path, sampling: FrameSampling = FOUR) -> list[int]:
    return [round(float(frame.mean())) for frame in read_frames(source, sampling)]


class Server:
    """A loopback server whose every reply is what `reply` writes."""

    def __init__(self) -> None:
        self.reply: Reply = lambda handler: None
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                with suppress(OSError):  # the watcher has seen enough
                    outer.reply(self)
                self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/video"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    yield served
    served.http.shutdown()
    served.http.server_close()


def whole(data: bytes, kind: str = "length", **headers: str) -> Reply:
    """A reply of all the data: of known length, chunked, or until the connection closes."""

    def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.0" if kind == "http10" else "HTTP/1.1"
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if kind == "length":
            handler.send_header("Content-Length", str(len(data)))
        if kind == "chunked":
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        if kind == "chunked":
            for at in range(0, len(data), 999):
                part = data[at : at + 999]
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.wfile.write(data)

    return reply


def endless(parts: Callable[[int], bytes], media_type: str, pause: float = 0.05) -> Reply:
    """A reply that sends part after part and never ends."""

    def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", media_type)
        handler.end_headers()
        number = 0
        while True:
            handler.wfile.write(parts(number))
            number += 1
            time.sleep(pause)

    return reply


def pushed_jpeg(number: int) -> bytes:
    """One part of a camera's motion JPEG, of a grey that grows."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (min(number, 250),) * 3).save(picture, "JPEG")
    data = picture.getvalue()
    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
    return head + data + b"\r\n"


CAMERA = endless(pushed_jpeg, "multipart/x-mixed-replace; boundary=frame")


@pytest.mark.parametrize("kind", ["length", "chunked", "closing", "http10"])
@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv", "avi"])
def test_a_reply_is_read_as_its_file(
    tmp_path: Path, server: Server, kind: str, suffix: str
) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", range(0, 200, 10))
    server.reply = whole(path.read_bytes(), kind)
    frames = read_frames(f"{server.url}.{suffix}", FOUR)
    assert frames.num_available == 20
    for served, local in zip(frames, read_frames(path, FOUR), strict=True):
        np.testing.assert_array_equal(served, local)
    assert server.requests == 1


def test_other_content_at_the_same_url_is_another_video(tmp_path: Path, server: Server) -> None:
    dark = write_clip(tmp_path / "dark.mp4", range(20, 40)).read_bytes()
    light = write_clip(tmp_path / "light.mp4", range(200, 220)).read_bytes()
    size = max(len(dark), len(light))
    same = {"ETag": '"1"', "Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    prints = []
    for data in (dark, light, dark):
        server.reply = whole(data.ljust(size, b"\0"), **same)
        prints.append(read_frames(f"{server.url}.mp4", FOUR).fingerprint)
    assert prints[0] == prints[2] != prints[1]


def test_a_picture_is_an_image_by_url_as_by_path(tmp_path: Path, server: Server) -> None:
    turned = Image.new("RGB", (96, 64), "red")
    exif = turned.getexif()
    exif[0x112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    server.reply = whole((tmp_path / "turned.jpg").read_bytes(), "closing")
    for source in (server.url, (tmp_path / "turned.jpg").as_uri()):
        frames = read_frames(source, FOUR)
        assert (frames.modality, frames.width, frames.height) == ("image", 64, 96)


@pytest.mark.parametrize("name", ["a b.mp4", "100%.mp4", "a#1.mp4", "a%20b.mp4", "why?.mp4"])
def test_a_file_url_is_its_path(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, range(0, 100, 10))
    for url in (path.as_uri(), f"file://{path}"):
        frames = read_frames(url, FOUR)
        assert frames.num_available == 10
        assert frames.fingerprint == read_frames(path, FOUR).fingerprint


def test_a_file_url_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"no b\.mp4: no such file or directory"):
        read_frames(f"file://{tmp_path}/no%20b.mp4", FOUR)


def test_a_transfer_that_breaks_off_is_an_error(tmp_path: Path, server: Server) -> None:
    data = write_clip(tmp_path / "clip.ts", range(0, 200, 10)).read_bytes()

    def half(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:1000])

    server.reply = half
    with pytest.raises(VideoError, match=rf"/video: the transfer ended after 1000 of {len(data)}"):
        read_frames(server.url, FOUR)


def test_a_server_that_stalls_is_one_line(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_reply, "SILENCE_SECONDS", 0.5)
    data = write_clip(tmp_path / "clip.ts", range(0, 200, 10)).read_bytes()
    over = threading.Event()

    def stall(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:1000])
        over.wait(20)

    server.reply = stall
    started = time.monotonic()
    with pytest.raises(VideoError, match=r"/video: the server has stalled, it sent nothing for"):
        read_frames(server.url, FOUR)
    assert time.monotonic() - started < 5
    over.set()


def test_a_disk_without_room_is_said(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SPARE_DISK_BYTES", 1 << 60)
    server.reply = whole(write_clip(tmp_path / "clip.ts", range(0, 100, 10)).read_bytes())
    with pytest.raises(VideoError, match=r"in the folder for temporary files, where 0\.0 GB are"):
        read_frames(server.url, FOUR)


@pytest.mark.slow
def test_pushed_pictures_are_watched_until_the_end_that_was_asked(server: Server) -> None:
    server.reply = CAMERA
    started = time.monotonic()
    frames = read_frames(server.url, FrameSampling(num_frames=4, end=1.0))
    assert time.monotonic() - started < 4
    assert 5 <= frames.num_available <= 21  # one each 50 ms, later where the machine is busy
    levels = [float(frame.mean()) for frame in frames]
    assert levels == sorted(levels)
    assert frames.timestamps is not None
    assert 0 <= frames.timestamps[0] < frames.timestamps[-1] <= 1.0
    assert server.requests == 1


@pytest.mark.slow
def test_pushed_pictures_without_an_end_are_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "JUDGED_AFTER_SECONDS", 1.0)
    server.reply = CAMERA
    with pytest.raises(InputError, match="/video: a live stream has no end; say how many seconds"):
        read_frames(server.url, FOUR)


def test_pushed_pictures_that_end_need_no_end(server: Server) -> None:
    data = b"".join(pushed_jpeg(10 * k) for k in range(8))
    server.reply = whole(data, "closing", Content_Type="multipart/x-mixed-replace;boundary=frame")
    assert read_frames(server.url, FOUR).num_available == 8


@pytest.fixture
def broadcast(tmp_path: Path) -> Callable[[int], bytes]:
    """Tenths of a second of MPEG-TS: 20 s in all, then nothing more that can be read."""
    path = write_clip(tmp_path / "live.ts", range(20, 220))
    data = path.read_bytes()
    step = max(188, len(data) // 200 // 188 * 188)
    return lambda number: data[number * step : (number + 1) * step] or b"\0" * 188


@pytest.mark.slow
def test_a_stream_without_length_is_watched_as_long_as_asked(
    server: Server, broadcast: Callable[[int], bytes]
) -> None:
    server.reply = endless(broadcast, "video/mp2t", 0.1)
    started = time.monotonic()
    frames = read_frames(server.url, FrameSampling(num_frames=4, end=2.0))
    assert time.monotonic() - started < 5
    assert 10 <= frames.num_available <= 25
    assert server.requests == 1


@pytest.mark.slow
def test_a_stream_that_arrives_as_it_plays_needs_an_end(
    server: Server, broadcast: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "JUDGED_AFTER_SECONDS", 1.0)
    server.reply = endless(broadcast, "video/mp2t", 0.1)
    with pytest.raises(InputError, match="a live stream has no end"):
        read_frames(server.url, FOUR)


def test_a_playlist_without_an_end_is_a_stream(tmp_path: Path, server: Server) -> None:
    whole_clip = write_clip(tmp_path / "clip.ts", range(50, 130), gop=20)
    playlist = tmp_path / "list.m3u8"
    options = {"hls_time": "2", "hls_list_size": "0"}
    with av.open(str(whole_clip)) as clip, av.open(str(playlist), "w", options=options) as target:
        stream = target.add_stream_from_template(clip.streams.video[0], opaque=True)
        for packet in clip.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    finished = playlist.read_text()

    def serve(text: str) -> Reply:
        def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
            path = tmp_path / handler.path.strip("/")
            whole(path.read_bytes() if path.suffix == ".ts" else text.encode())(handler)

        return reply

    growing = finished.replace("#EXT-X-ENDLIST\n", "")
    server.reply = serve(growing)
    with pytest.raises(InputError, match="a live stream has no end"):
        read_frames(f"{server.url}.m3u8", FOUR)
    frames = read_frames(f"{server.url}.m3u8", FrameSampling(num_frames=4, end=1.0))
    assert frames.num_available == 10
    server.reply = serve(finished)
    assert read_frames(f"{server.url}.m3u8", FOUR).num_available == 80


@pytest.mark.parametrize("kind", ["length", "chunked", "closing"])
def test_segments_without_a_length_are_not_truncated(
    tmp_path: Path, server: Server, kind: str
) -> None:
    segment = write_clip(tmp_path / "clip.ts", range(0, 100, 2)).read_bytes()
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:{0}\n#EXTINF:{0},\nclip.ts\n#EXT-X-ENDLIST\n"

    def serve(seconds: int) -> Reply:
        def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
            text = playlist.format(seconds).encode()
            whole(segment if handler.path == "/clip.ts" else text, kind)(handler)

        return reply

    server.reply = serve(5)
    frames = read_frames(f"{server.url}.m3u8", FrameSampling(num_frames=50))
    assert [image.mean() > 0 for image in frames][-1]
    assert (frames.num_available, frames.remarks) == (50, ())
    if kind == "closing":  # half of what the playlist names did not arrive
        server.reply = serve(10)
        cut = read_frames(f"{server.url}.m3u8", FOUR)
        assert "the file is truncated, 50 of" in cut.remarks[0]


class Sender:
    """A TCP server that sends parts of a stream, a pause before each, to whoever connects."""

    def __init__(self, parts: list[bytes], pause: float, *, hangs: bool = False) -> None:
        self.parts, self.pause, self.hangs = parts, pause, hangs
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._send, args=(connection,), daemon=True).start()

    def _send(self, connection: socket.socket) -> None:
        with connection:
            try:
                for part in self.parts:
                    connection.sendall(part)
                    time.sleep(self.pause)
                while self.hangs:
                    time.sleep(0.1)
            except OSError:  # the watcher has seen enough
                return


def stretched(path: Path, target: Path, factor: int) -> list[bytes]:
    """The clip with its timestamps stretched, a part for each frame; the announced rate stays."""
    buffer = io.BytesIO()
    with av.open(str(path)) as source, av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts * factor, packet.dts * factor
                packet.stream = stream
                container.mux(packet)
    data = buffer.getvalue()
    target.write_bytes(data)
    step = max(188, len(data) // 60 // 188 * 188)
    return [data[at : at + step] for at in range(0, len(data), step)]


def test_a_stream_at_another_rate_than_announced_is_watched_by_its_own_time(
    tmp_path: Path,
) -> None:
    path = write_clip(tmp_path / "clip.ts", range(20, 80))  # announces 10 frames per second
    sender = Sender(stretched(path, tmp_path / "slow.ts", 4), 0.02, hangs=True)
    frames = read_frames(sender.url, FrameSampling(num_frames=4, end=2.0))
    assert 4 <= frames.num_available <= 6  # 2.5 frames per second, not 20 of them
    assert frames.timestamps is not None
    assert float(frames.timestamps[-1]) <= 2.0
    assert sender.connections == 1


@pytest.mark.slow
def test_a_slow_stream_is_bounded_by_the_clock_on_the_wall(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.ts", range(20, 120), gop=1)
    data = path.read_bytes()
    parts = [data[at : at + 1880] for at in range(0, len(data), 1880)]
    sender = Sender(parts, 0.4, hangs=True)
    started = time.monotonic()
    frames = read_frames(sender.url, FrameSampling(num_frames=2, end=2.0))
    assert time.monotonic() - started < 9
    assert frames.num_available < 20


@pytest.mark.slow
def test_a_stream_that_stalls_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(recordings, "SILENCE_SECONDS", 1.0)
    path = write_clip(tmp_path / "clip.ts", range(20, 40))
    sender = Sender([path.read_bytes()], 0.0, hangs=True)
    with pytest.raises(VideoError, match=r"^tcp://127.*: the stream has stalled, it sent nothing"):
        read_frames(sender.url, FrameSampling(num_frames=4, end=30.0))


def test_a_recording_can_be_iterated_again(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.ts", range(20, 80))
    sender = Sender([path.read_bytes()], 0.0)
    frames = read_frames(sender.url, FrameSampling(num_frames=4, end=3.0))
    first, second = list(frames), list(frames)
    np.testing.assert_array_equal(first, second)
    assert sender.connections == 1
    assert read_frames(sender.url, FrameSampling(4, end=3.0)).fingerprint != frames.fingerprint


def test_no_file_is_left_behind(tmp_path: Path, server: Server) -> None:
    """Neither by a program that holds its frames to the end, nor by one that lets them go."""
    server.reply = whole(write_clip(tmp_path / "clip.ts", range(0, 100, 10)).read_bytes())
    left = tmp_path / "temporary"
    left.mkdir()
    code = (
        "import os, sys; from hicom_edge.runtime.video import FrameSampling, read_frames\n"
        "kept = [read_frames(sys.argv[1], FrameSampling(2)) for _ in range(3)]\n"
        "assert len(os.listdir(sys.argv[2])) == 3\n"
        "del kept[0]; assert len(os.listdir(sys.argv[2])) == 2"
    )
    environment = {**os.environ, "TMPDIR": str(left)}
    command = [sys.executable, "-c", code, server.url, str(left)]
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert list(left.iterdir()) == []


CAMERA_PROGRAM = """
import gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1"); server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( videotestsrc is-live=1 ! video/x-raw,width=160,height=120,framerate=10/1 "
    "! x264enc tune=zerolatency key-int-max=20 ! rtph264pay name=pay0 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


@pytest.fixture
def rtsp() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A GStreamer camera of ten frames a second, and its process."""
    program = ["/usr/bin/python3", "-c", CAMERA_PROGRAM]
    if not Path(program[0]).is_file():
        pytest.skip("needs Debian's Python with GStreamer's RTSP server")
    camera = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert camera.stdout is not None
    port = camera.stdout.readline().strip()
    if not port:
        pytest.skip("needs Debian's Python with GStreamer's RTSP server")
    yield f"rtsp://127.0.0.1:{port}/camera", camera
    camera.kill()
    camera.wait()


@pytest.mark.slow
def test_an_rtsp_camera_is_watched_at_once(rtsp: tuple[str, subprocess.Popen[str]]) -> None:
    started = time.monotonic()
    frames = read_frames(rtsp[0], FrameSampling(num_frames=4, end=2.0))
    assert time.monotonic() - started < 4.5  # of which 2 s are watched; it was 7.7 s
    assert frames.num_available in (19, 20, 21)
    assert len(list(frames)) == 4
    with pytest.raises(InputError, match="a live stream has no end"):
        read_frames(rtsp[0], FOUR)


@pytest.mark.slow
def test_an_rtsp_camera_that_stalls_or_dies_is_one_line(
    rtsp: tuple[str, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(recordings, "SILENCE_SECONDS", 1.0)
    url, camera = rtsp
    threading.Timer(1.5, camera.send_signal, [signal.SIGSTOP]).start()
    with pytest.raises(VideoError, match="the stream has stalled, it sent nothing for"):
        read_frames(url, FrameSampling(num_frames=4, end=30.0))
    with pytest.raises(VideoError, match="the server has stalled, it sent nothing that can be"):
        read_frames(url, FrameSampling(num_frames=4, end=30.0))
    camera.send_signal(signal.SIGCONT)
    threading.Timer(2.0, camera.kill).start()
    with pytest.raises(VideoError, match=r"the stream ended after \d.* of the 30 s to watch"):
        read_frames(url, FrameSampling(num_frames=4, end=30.0))


def test_redirects_lead_to_http_only(tmp_path: Path, server: Server) -> None:
    path = write_clip(tmp_path / "clip.ts", range(0, 100, 10))

    def elsewhere(place: str) -> Reply:
        def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
            if handler.path == "/there":
                whole(path.read_bytes())(handler)
                return
            handler.send_response(302)
            handler.send_header("Location", place)
            handler.end_headers()

        return reply

    server.reply = elsewhere("/there")
    assert read_frames(server.url, FOUR).num_available == 10
    for place in (path.as_uri(), "ftp://127.0.0.1/clip.ts", "/video"):
        server.reply = elsewhere(place)
        with pytest.raises(VideoError, match="/video: cannot be opened") as refused:
            read_frames(server.url, FOUR)
        assert "\n" not in str(refused.value)


def test_user_and_password_are_sent_and_not_shown(tmp_path: Path, server: Server) -> None:
    data = write_clip(tmp_path / "clip.ts", range(0, 100, 10)).read_bytes()

    def guarded(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Authorization") == "Basic bWU6cEBzcw==":
            whole(data)(handler)
            return
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", 'Basic realm="videos"')
        handler.end_headers()

    server.reply = guarded
    assert read_frames(server.url.replace("//", "//me:p%40ss@"), FOUR).num_available == 10
    with pytest.raises(VideoError, match=r"//me:\*\*\*@.*\(HTTP 401 Unauthorized\)"):
        read_frames(server.url.replace("//", "//me:wrong@"), FOUR)

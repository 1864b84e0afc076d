#!/usr/bin/env bash
# Reading a frame's side data in PyAV keeps its picture until the garbage collector runs.
#
# Versions: av 18.1.0 (FFmpeg 8.1.2), numpy 2.3.5; Linux, CPython 3.11.
#
# `VideoFrame.side_data` makes an object that refers to the frame, and the frame keeps that object: a
# reference cycle, also for a frame that has no side data. The picture (1.4 MB at 720p) is not memory
# that Python counts, so the collector does not hurry: a loop that looks at the side data of each
# frame holds every picture, where a loop that does not holds one. `gc.collect()` gives them back
# for reuse. A reader of long videos has to collect now and then, or not to touch side data.
#
# Output, with the collector off (60 frames of 1280x720):
#   without side data: +4 MB
#   with side data: +82 MB
# Figures vary by a few MB. The status is 0 while the second is over 50 MB and the first is not.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q av==18.1.0 numpy==2.3.5
"$work/venv/bin/python" - <<'PY'
import gc
import io
import os
import sys
from pathlib import Path

import av
import numpy as np

video = io.BytesIO()
with av.open(video, "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
    stream.options = {"threads": "1", "preset": "ultrafast"}
    for level in range(60):
        picture = np.full((720, 1280, 3), 4 * level, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(look_at_side_data):
    before = resident()
    with av.open(io.BytesIO(video.getvalue())) as container:
        container.streams.video[0].thread_type = "NONE"
        for frame in container.decode(video=0):
            if look_at_side_data:
                len(frame.side_data)
    return resident() - before


gc.collect()
gc.disable()
plain, touched = growth(False), growth(True)
print(f"without side data: +{plain:.0f} MB")
print(f"with side data: +{touched:.0f} MB")
sys.exit(not (touched > 50 > plain))
PY

"""Draws docs/ask.svg, the picture at the top of the README: a clip and `hicom-edge ask` about it.

    python docs/draw_picture.py

The frames are those that the model sees, and the text is what the command really prints. The
animation is CSS inside the SVG, so that the file needs neither a script nor another file.
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from hicom_edge.runtime.video import FrameSampling, read_frames

ROOT = Path(__file__).resolve().parents[1]
CLIP = "docs/demo.mp4"
QUESTION = "which way does the red circle move"
FRAMES = 8
CLIP_SIDE = 168
SECONDS = 8.0
"""One turn of the animation: the clip plays twice, the question is typed, the answer stays."""
TYPED_FROM, TYPED_UNTIL, ANSWERED = 0.08, 0.38, 0.46
CHARACTER_WIDTH = 7.23
"""Of a 12 px monospace font; the cover that reveals the typed command moves in these steps."""


def main() -> None:
    answer, remark = ask()
    output = ROOT / "docs" / "ask.svg"
    output.write_text(picture(clip_frames(), answer, remark), encoding="utf-8")
    print(f"{output.relative_to(ROOT)}: {output.stat().st_size} bytes")


def ask() -> tuple[str, str]:
    """The answer, and the remark on tokens and times, as the command prints them."""
    command = [sys.executable, "-m", "hicom_edge", "ask", CLIP, QUESTION]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    remark = next(line for line in done.stderr.splitlines() if "patch tokens" in line)
    return done.stdout.strip(), remark


def clip_frames() -> list[str]:
    """The frames that the model sees, as data URLs of palette PNGs."""
    frames = read_frames(ROOT / CLIP, FrameSampling(num_frames=FRAMES))
    return [data_url(frame) for frame in frames]


def data_url(frame: np.ndarray) -> str:
    image = Image.fromarray(frame).resize((CLIP_SIDE, CLIP_SIDE), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.quantize(64).save(encoded, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


def picture(frames: list[str], answer: str, remark: str) -> str:
    command = f'$ hicom-edge ask {CLIP} "{QUESTION}"'
    tokens, _, times = remark.partition(" · vision ")
    images = "\n".join(
        f'<image class="frame f{i}" x="16" y="44" width="{CLIP_SIDE}" height="{CLIP_SIDE}" '
        f'href="{url}"/>'
        for i, url in enumerate(frames)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 228" role="img"
 aria-label="hicom-edge answers “{escape(answer)}” to “{QUESTION}”">
<style>
{style(len(frames), len(command))}
</style>
<rect width="760" height="228" rx="8" fill="#1b1f27"/>
<g fill="#4a5160"><circle cx="20" cy="20" r="5"/><circle cx="38" cy="20" r="5"/>\
<circle cx="56" cy="20" r="5"/></g>
{images}
<text x="204" y="66">{escape(command)}</text>
<rect class="cover" x="204" y="52" width="546" height="20" fill="#1b1f27"/>
<g class="late">
<text x="204" y="96" class="answer">{escape(answer)}</text>
<text x="204" y="122" class="remark">{escape(tokens)}</text>
<text x="204" y="142" class="remark">vision {escape(times)}</text>
</g>
</svg>
"""


def style(frames: int, characters: int) -> str:
    """Frame i is shown for its share of half a turn; the cover moves off the typed command."""
    share = 100 / frames
    typed = characters * CHARACTER_WIDTH
    rules = [
        "text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #d7dae0; }",
        ".answer { fill: #8fd18a; font-weight: bold; font-size: 15px; }",
        ".remark { fill: #8b93a3; }",
        f".frame {{ opacity: 0; animation: frame {SECONDS / 2}s steps(1) infinite; }}",
        f"@keyframes frame {{ 0% {{ opacity: 1; }} {share:.2f}% {{ opacity: 0; }} }}",
        *(
            f".f{i} {{ animation-delay: {SECONDS / 2 * (i / frames - 1):.3f}s; }}"
            for i in range(frames)
        ),
        f".cover {{ animation: typing {SECONDS}s linear infinite; }}",
        f"@keyframes typing {{ 0%, {TYPED_FROM:.0%} {{ transform: translateX(16px); }} "
        f"{TYPED_UNTIL:.0%} {{ transform: translateX({typed:.0f}px); }} "
        f"100% {{ transform: translateX({typed:.0f}px); }} }}",
        f".late {{ animation: late {SECONDS}s steps(1) infinite; }}",
        f"@keyframes late {{ 0% {{ opacity: 0; }} {ANSWERED:.0%} {{ opacity: 1; }} }}",
        # without animation the picture is the last moment: everything is written
        "@media (prefers-reduced-motion: reduce) { * { animation: none !important; } "
        ".f0 { opacity: 1; } .cover { display: none; } }",
    ]
    return "\n".join(rules)


if __name__ == "__main__":
    main()

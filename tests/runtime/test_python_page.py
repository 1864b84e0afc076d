"""The lines of docs/python.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_python_page_runs(monkeypatch, capsys) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.chdir(ROOT)
    exec(compile("\n".join(blocks), "docs/python.md", "exec"), {"__name__": "page"})
    out = capsys.readouterr().out
    assert "<Clip: 8 frames of docs/demo.mp4, 0.1 to 1.8 s of 2.0 s>" in out
    assert "the call was cancelled by its caller" in out

"""What README promises a newcomer is run, word for word."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
RIGHT = "right"

pytestmark = pytest.mark.skipif(
    not README.is_file(), reason="the wheel is tested without the README"
)


def blocks(language: str, page: Path = README) -> list[str]:
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)
    return [text for name, text in fenced if name == language]


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith("hicom-edge ")]


def test_the_first_command_gives_the_answer_that_readme_shows() -> None:
    first = commands()[0]
    assert first.startswith("hicom-edge ask docs/demo.mp4")
    done = subprocess.run(
        [sys.executable, "-m", "hicom_edge", *shlex.split(first)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = next(block for block in blocks("") if "patch tokens" in block)
    assert done.stdout.strip().splitlines()[0] == RIGHT
    assert shown.strip().splitlines()[0] == RIGHT


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith(RIGHT)


def test_the_page_of_commands_names_every_verb_and_no_other() -> None:
    from hicom_edge.cli import VERBS

    named = set(re.findall(r"^\| `hicom-edge (\w+)", COMMANDS.read_text(), flags=re.M))
    assert named == {verb.name for verb in VERBS}


def test_the_example_script_runs_the_vision_tower_once(capsys) -> None:
    module = runpy.run_path(str(ROOT / "examples" / "several_questions.py"))
    module["main"](str(ROOT / "docs" / "demo.mp4"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("which way does the red circle move? right")
    assert [("kept" in line) for line in lines] == [False, True, True]


def test_every_folder_in_the_tree_exists() -> None:
    tree = next(block for block in blocks("", ARCHITECTURE) if "errors.py" in block)
    for line in tree.strip().splitlines():
        for name in re.findall(r"^\S+|(?<=\.py )\S+\.py", line):
            assert (ROOT / name).exists(), name


def test_architecture_names_modules_that_exist() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.\w+)`", text):
        assert (ROOT / name).exists(), name


def test_links_lead_to_files_that_exist() -> None:
    for page in (README, ARCHITECTURE, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_file_names_the_machine_it_was_written_on() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    forbidden = re.compile(rf"{re.escape(os.sep)}(root|home|work){re.escape(os.sep)}\w")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".json", ".txt", ".sh"} and path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not forbidden.search(text), name

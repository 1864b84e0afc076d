"""docs/jetson.md says what the estimate of memory gives, and names commands that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import onnx_ir as ir
import pytest
import typer

from hicom_edge.cli import app
from hicom_edge.export.save import save_graph, weight_bytes
from hicom_edge.model.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "jetson.md"
DEMO = ROOT / "demo" / "bundle"

pytestmark = pytest.mark.skipif(
    not DOC.is_file(), reason="the documentation is not part of the wheel"
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """benchmarks/jetson_memory.py, which is a script and not part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("jetson_memory")


@pytest.mark.slow
def test_the_tables_are_what_the_script_prints(script: ModuleType) -> None:
    page = DOC.read_text(encoding="utf-8")
    tables = script.tables()
    assert len(tables) == 4
    for table in tables:
        assert f"\n\n{table}\n\n" in page, "run python benchmarks/jetson_memory.py"


@pytest.mark.parametrize("form", ["fp16", "int8", "int4"])
def test_a_graph_that_is_counted_takes_as_much_on_the_disk(
    script: ModuleType, tmp_path: Path, form: str
) -> None:
    """Beside its nodes, which are a few hundred bytes each."""
    graph = script.in_form(form, "decoder", ir.load(DEMO / "decoder.onnx"))
    save_graph(graph, tmp_path / "decoder.onnx")
    stored = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 0 <= stored - weight_bytes(graph) < 500 * len(graph.graph) + 4096
    scales = [v for v in graph.graph.initializers.values() if str(v.name).endswith("/scale")]
    assert bool(scales) == (form != "fp16")


def test_what_stays_in_floating_point_is_counted_without_scales(script: ModuleType) -> None:
    graph = ir.load(DEMO / "decoder.onnx")
    assert script.float_bytes(graph) == pytest.approx(weight_bytes(graph), rel=0.01)
    head = graph.graph.initializers["lm_head.weight"].const_value
    assert head is not None
    quantised = script.in_form("int4", "decoder", graph)
    assert head.nbytes <= script.float_bytes(quantised) < 1.2 * head.nbytes


def test_a_hollow_checkpoint_takes_no_disk_and_opens(script: ModuleType, tmp_path: Path) -> None:
    sizes = script.real_sizes.released("0.5b")
    script.real_sizes.write_hollow_checkpoint(tmp_path / "checkpoint", sizes)
    checkpoint = Checkpoint.open(tmp_path / "checkpoint")
    weights = tmp_path / "checkpoint" / "model.safetensors"
    assert checkpoint.part("llm")["model.embed_tokens.weight"].shape == (151936, 896)
    assert weights.stat().st_size > 2e9
    assert weights.stat().st_blocks * 512 < 1e7


def test_a_board_fits_with_its_reserve_and_builds_with_swap(script: ModuleType) -> None:
    assert [script.fits(need, 8) for need in (6.0, 6.1, 8.1)] == ["yes", "too tight", "no"]
    assert script.builds(5.0, 6.0, 8) == "yes"
    assert script.builds(5.0, 6.5, 8) == "swap 1 GB"
    assert script.builds(7.0, 9.0, 8) == "too tight"
    assert script.builds(9.0, 9.0, 8) == "no"


def test_every_command_of_the_page_exists_with_its_options() -> None:
    commands = commands_of_the_page()
    assert {line.split()[1] for line in commands} >= {"export", "calibrate", "build", "ask"}
    group = typer.main.get_command(app)
    for line in commands:
        verb = group.get_command(None, line.split()[1])  # type: ignore[attr-defined]
        known = {option for parameter in verb.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= known, line


def commands_of_the_page() -> list[str]:
    """Lines of its code that call hicom-edge, in a container or not, without remarks."""
    blocks = re.findall(r"```bash\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    calls = [line[line.index("hicom-edge ") :] for line in lines if "hicom-edge " in line]
    return [call for call in calls if re.match(r"hicom-edge [a-z]+", call)]


def test_the_container_has_what_the_page_tells_a_board_to_install() -> None:
    text = (ROOT / "docker" / "Dockerfile.jetson").read_text(encoding="utf-8")
    for package in ("build-essential", "cmake", "libnvinfer-dev", "python3-libnvinfer"):
        assert package in text
        assert package in DOC.read_text(encoding="utf-8")
    assert "--system-site-packages" in text

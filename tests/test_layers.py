"""Imports run in the direction that ARCHITECTURE draws, and cost what they may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hicom_edge

ROOT = Path(hicom_edge.__file__).parent
BASE = {"errors", "bundle"}
MAY_IMPORT = {
    "errors": set(),
    "bundle": {"errors"},
    "engines": BASE,
    "runtime": BASE | {"engines"},
    "model": {"errors"},
    "export": BASE | {"model", "engines", "runtime"},
    "shapes": BASE | {"engines", "runtime"},
    "datasets": BASE | {"engines", "runtime"},
    "verify": BASE | {"engines", "runtime", "model", "export"},
    "bench": BASE | {"engines", "runtime", "verify"},
    "training": BASE | {"engines", "runtime", "model", "export", "shapes", "datasets"},
    "calibration": BASE | {"engines", "runtime", "shapes", "datasets", "verify"},
    "commands": BASE
    | {"engines", "runtime", "export", "calibration", "shapes", "datasets", "training"}
    | {"verify", "bench"},
    "__main__": {"cli"},
    "cli": {"errors", "commands"},
}
NO_MODULES = (ROOT / "__init__.py", ROOT / "setup.py")
NO_TORCH = (
    "errors",
    "bundle",
    "engines",
    "runtime",
    "shapes",
    "datasets",
    "commands",
    "cli",
)
HEAVY = {"torch", "transformers", "onnx", "onnxscript", "onnx_ir", "safetensors", "sentencepiece"}

USED_WHERE_INSTALLED = {"bundle": {"onnx"}}
"""Imported inside a function, and done without where the package is missing."""


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    files = [*ROOT.glob("*.py")]
    for layer in MAY_IMPORT:
        files += (ROOT / layer).rglob("*.py")
    return sorted(path for path in files if path not in NO_MODULES)


def imports(path: Path, type_checking: bool) -> Iterator[str]:
    """Names of imported modules; those under `if TYPE_CHECKING` only when asked for."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse if not type_checking else [*node.body, *node.orelse]
        else:
            waiting += ast.iter_child_nodes(node)


def test_every_module_belongs_to_a_layer() -> None:
    assert {layer_of(path) for path in sources()} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_the_layers_below(path: Path) -> None:
    layer = layer_of(path)
    allowed = MAY_IMPORT[layer] | {layer}
    own = [name.split(".") for name in imports(path, True) if name.startswith("hicom_edge.")]
    used = {parts[1] for parts in own}
    known = {name for name in used if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()}
    assert known <= allowed


@pytest.mark.parametrize("layer", NO_TORCH)
def test_the_runtime_never_imports_what_only_training_needs(layer: str) -> None:
    for path in sources():
        if layer_of(path) == layer:
            roots = {name.split(".")[0] for name in imports(path, type_checking=False)}
            assert not roots & HEAVY - USED_WHERE_INSTALLED.get(layer, set()), path


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "hicom_edge",
        "hicom_edge.runtime",
        "hicom_edge.engines",
        "hicom_edge.cli",
        "hicom_edge.bundle",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = HEAVY | {"onnxruntime", "av", "PIL", "tokenizers", "rich", "numpy"}
    assert not loaded_after(f"import {module}") & heavy


def test_asking_loads_no_torch() -> None:
    statement = "from hicom_edge import VideoQA; from hicom_edge.engines.doctor import examine"
    modules = loaded_after(f"{statement}; examine()")
    assert not modules & HEAVY
    assert "onnxruntime" in modules  # the check sees what is loaded


def test_the_public_names_are_there() -> None:
    for name in hicom_edge.__all__:
        assert getattr(hicom_edge, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = hicom_edge.Nothing

"""Imports point one way: between rooms, between the folders of a room, and between modules.

Imports inside functions and under `if TYPE_CHECKING` count like any other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import hicom_edge

ROOT = Path(hicom_edge.__file__).parent

_BUNDLE = {"errors", "files", "option_fields", "bundle"}
_RUNTIME = {*_BUNDLE, "progress", "planning", "engines", "runtime"}
_DATA = {*_RUNTIME, "shapes", "datasets", "evaluation"}

ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "progress": {"errors"},
    "option_fields": {"errors"},
    "bundle": {"errors", "files", "progress"},
    "planning": _BUNDLE,
    "engines": {*_BUNDLE, "progress", "planning"},
    "runtime": _RUNTIME - {"runtime"},
    "serve": _RUNTIME,
    "model": {"errors", "files", "progress"},
    "export": {*_RUNTIME, "model"},
    "shapes": {"errors", "files", "progress", "option_fields", "runtime"},
    "datasets": _RUNTIME,
    "evaluation": {*_RUNTIME, "datasets"},
    "training": {*_DATA, "model", "export"},
    "verify": {*_RUNTIME, "model", "export"},
    "bench": {*_RUNTIME, "verify"},
    "calibration": {*_DATA, "verify"},
    "commands": {*_DATA, "serve", "export", "calibration", "training", "verify", "bench"},
    "cli": {"errors", "files", "commands"},
    "__main__": {"cli"},
}
"""What each room may import. A room may only name rooms above it, so there can be no circle."""

NOT_IN_A_ROOM = (ROOT / "__init__.py", ROOT / "setup.py")
NO_TORCH = (
    "errors",
    "files",
    "progress",
    "option_fields",
    "bundle",
    "planning",
    "engines",
    "runtime",
    "serve",
    "shapes",
    "datasets",
    "evaluation",
    "commands",
    "cli",
)
HEAVY = {"torch", "transformers", "onnx", "onnxscript", "onnx_ir", "safetensors", "sentencepiece"}

USED_WHERE_INSTALLED = {"bundle": {"onnx"}}
"""Imported inside a function that also works without the package."""

Edges = dict[str, set[str]]


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def sources() -> tuple[Path, ...]:
    files = [*ROOT.glob("*.py")]
    for room in ROOMS:
        files += (ROOT / room).rglob("*.py")
    return tuple(sorted(path for path in files if path not in NOT_IN_A_ROOM))


def imports(path: Path, type_checking: bool = True) -> Iterator[str]:
    """Names of imported modules; those under `if TYPE_CHECKING` only if `type_checking`."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse if not type_checking else [*node.body, *node.orelse]
        else:
            waiting += ast.iter_child_nodes(node)


def module_file(name: str) -> Path | None:
    """The file of a module of this package, or None where the name is no module."""
    if not name.startswith("hicom_edge."):
        return None
    place = ROOT.joinpath(*name.split(".")[1:])
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in files if path.is_file()), None)


@cache
def imported_files(path: Path) -> frozenset[Path]:
    """The package's modules that a module imports by name.

    `from hicom_edge.room import module` imports the module; the room's `__init__` counts only if
    a name is taken from it.
    """
    files = {name: module_file(name) for name in imports(path)}
    parents = {name.rpartition(".")[0] for name, file in files.items() if file is not None}
    taken_from = {name.rpartition(".")[0] for name, file in files.items() if file is None}
    kept = {file for name, file in files.items() if name in taken_from or name not in parents}
    return frozenset(file for file in kept if file is not None and file != path)


def module_node(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def folder_node(path: Path) -> str:
    """The sub-folder of a room that holds a module, or the module if it lies in the room itself."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2])


def edges(node_of) -> Edges:  # type: ignore[no-untyped-def]
    found: Edges = defaultdict(set)
    for path in sources():
        found[node_of(path)] |= {node_of(file) for file in imported_files(path)} - {node_of(path)}
    return found


def circles(graph: Edges) -> list[set[str]]:
    """Groups of nodes of which each reaches every other."""
    reached = {node: reachable(graph, node) for node in graph}
    groups = {
        frozenset(other for other in reached[node] if node in reached.get(other, ()))
        for node in graph
        if node in reached[node]
    }
    return [set(group) for group in groups]


def reachable(graph: Edges, start: str) -> set[str]:
    """All nodes at the end of a path of one or more edges."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += graph.get(node, ())
    return seen


def test_circles_are_recognised() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}
    assert circles(graph) == [{"a", "b", "c"}]


def test_a_room_may_only_import_rooms_above_it_in_the_table() -> None:
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert allowed <= above, f"{room} may not import {sorted(allowed - above)}: listed below it"
        above.add(room)


USES_TENSORRT = {
    "commands": "the build command",
    "verify/polygraphy_hooks.py": "Polygraphy calls it with TensorRT's objects",
    "engines/__init__.py": "the registry",
    "engines/ort/tensorrt_provider.py": "asks whether TensorRT is installed",
}
"""Who may import from engines/tensorrt and engines/tensorrt_llm, besides these two."""


def test_tensorrt_is_reached_through_the_registry_and_the_build_command() -> None:
    folders = {"engines/tensorrt", "engines/tensorrt_llm"}
    users = {
        path
        for path in sources()
        if folder_node(path) not in folders
        and folders & {folder_node(file) for file in imported_files(path)}
    }
    strays = {
        module_node(path)
        for path in users
        if module_node(path) not in USES_TENSORRT and room_of(path) not in USES_TENSORRT
    }
    assert not strays, f"{sorted(strays)}: arithmetic belongs in planning/, open by the registry"


def test_every_module_belongs_to_a_room() -> None:
    strays = sorted({room_of(path) for path in sources()} - set(ROOMS))
    assert not strays, f"add {strays} to ROOMS, with what each may import"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    wrong = [
        f"{module_node(path)} imports {module_node(file)}"
        for path in sources()
        if room_of(path) == room
        for file in sorted(imported_files(path))
        if room_of(file) not in {room, *ROOMS[room]} and file not in NOT_IN_A_ROOM
    ]
    assert not wrong, f"{room} may import {sorted(ROOMS[room])}, but " + "; ".join(wrong)


@pytest.mark.parametrize("node_of", [folder_node, module_node], ids=["folders", "modules"])
def test_there_are_no_circles(node_of) -> None:  # type: ignore[no-untyped-def]
    graph = edges(node_of)
    listed = [
        ", ".join(f"{a} imports {b}" for a in sorted(circle) for b in sorted(graph[a] & circle))
        for circle in circles(graph)
    ]
    assert not listed, "circle of imports: " + "; ".join(listed)


@pytest.mark.parametrize("room", NO_TORCH)
def test_the_runtime_never_imports_what_only_training_needs(room: str) -> None:
    for path in sources():
        if room_of(path) == room:
            roots = {name.split(".")[0] for name in imports(path, type_checking=False)}
            assert not roots & HEAVY - USED_WHERE_INSTALLED.get(room, set()), path


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

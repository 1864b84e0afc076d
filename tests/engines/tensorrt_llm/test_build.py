"""The build's orchestration, with a script in place of `trtllm-build`; nothing builds an engine."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorrt_llm_stand_in import (
    BuildCommand,
    arguments_of,
    install_tensorrt_llm,
    with_language_model,
)

from hicom_edge.bundle import Bundle
from hicom_edge.cli import main
from hicom_edge.engines.tensorrt_llm import build as tensorrt_llm_build
from hicom_edge.engines.tensorrt_llm.build import (
    LlmBuildOptions,
    build_command,
    build_language_model,
)
from hicom_edge.engines.tensorrt_llm.command import command_of, plan_build
from hicom_edge.engines.tensorrt_llm.generator import load_generator
from hicom_edge.engines.tensorrt_llm.session import ExecutorSession
from hicom_edge.errors import BundleError, EngineError, InputError, ResourceError
from hicom_edge.files import FileLock
from hicom_edge.planning.gpus import Gpu
from hicom_edge.planning.machine import Machine

ORIN = Gpu("Orin", (8, 7), 32 << 30, 16)
MACHINE = Machine(gpus=(ORIN,))
OPTIONS = LlmBuildOptions(max_frames=4, max_new_tokens=5)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildCommand:
    (tmp_path / "bin").mkdir()
    script = BuildCommand(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return script


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of Python's path, empty at first."""
    (tmp_path / "packages").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    return tmp_path / "packages"


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    return with_language_model(tiny_bundle, tmp_path / "bundle")


def left_in(bundle: Bundle) -> list[str]:
    place = bundle.path / "engines" / "tensorrt-llm-orin-16-multiprocessors-sm87"
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))


@pytest.mark.parametrize("version", ["0.12", "1.x"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_command_takes_only_arguments_that_the_version_has(
    tiny_bundle: Bundle, tmp_path: Path, version: str, dtype: str
) -> None:
    bundle = with_language_model(tiny_bundle, tmp_path, version, dtype=dtype)
    executable, *arguments = build_command(bundle, OPTIONS, MACHINE)
    names = [name.removeprefix("--") for name in arguments[::2]]
    assert set(names) <= arguments_of(version, "build")
    assert len(names) == len(set(names))
    assert Path(executable).name == "trtllm-build"
    given = dict(zip(names, arguments[1::2]))
    assert given["context_fmha"] == ("enable" if dtype == "float16" else "disable")
    reuse = dtype == "float16" and version == "1.x"
    assert given["use_paged_context_fmha"] == ("enable" if reuse else "disable")


def test_an_int8_cache_is_built_without_paged_context_attention(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    """They do not go together: 0.12's build ends with an error, 1.x's switches one of them off."""
    plan = plan_build(with_language_model(tiny_bundle, tmp_path, "1.x"), OPTIONS)
    int8 = replace(plan, config=replace(plan.config, kv_quant_algo="INT8"))
    _, *arguments = command_of("trtllm-build", int8, tmp_path, tmp_path)
    given = dict(zip(arguments[::2], arguments[1::2]))
    assert given["--use_paged_context_fmha"] == "disable"


def test_the_engine_limits_are_named_as_the_source_names_them() -> None:
    for version in ("0.12", "1.x"):
        assert arguments_of(version, "engine_limits") == {
            "max_batch_size",
            "max_input_len",
            "max_seq_len",
            "max_num_tokens",
            tensorrt_llm_build._TABLE_LIMIT,
        }


def test_a_build_publishes_engine_and_sidecar(bundle: Bundle, command: BuildCommand) -> None:
    remarks: list[str] = []
    built = build_language_model(bundle, OPTIONS, remarks.append, MACHINE)
    assert remarks[0] == f"running {shlex.join([str(command.path), *command.runs[0]])}"
    assert left_in(bundle) == [
        "llm",
        "llm.json",
        "llm.log",
        "llm/config.json",
        "llm/rank0.engine",
        "timing.cache",
    ]
    assert (built.path.name, built.kept) == ("llm", False)
    sidecar = json.loads((built.path.parent / "llm.json").read_text())
    assert (sidecar["engine_version"], sidecar["device"]) == ("0.12.0", "Orin, 16 multiprocessors")
    assert sidecar["options"]["max_input_len"] == 59  # the context is 64


def test_a_bundle_that_is_named_relatively_is_built_in_its_place(
    bundle: Bundle, command: BuildCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build runs in a directory of its own."""
    monkeypatch.chdir(bundle.path.parent)
    built = build_language_model(
        replace(bundle, path=Path(bundle.path.name)), OPTIONS, machine=MACHINE
    )
    assert (built.path / "rank0.engine").is_file()
    assert left_in(bundle)[-1] == "timing.cache"


def test_a_second_build_at_the_same_time_is_refused(bundle: Bundle, command: BuildCommand) -> None:
    place = bundle.path / "engines" / f"tensorrt-llm-{ORIN.folder}"
    place.mkdir(parents=True)
    with FileLock(place), pytest.raises(EngineError, match=r"another build writes engines into"):
        build_language_model(bundle, OPTIONS, machine=MACHINE)
    assert command.runs == []
    assert not build_language_model(bundle, OPTIONS, machine=MACHINE).kept


def test_a_second_build_keeps_the_engine(bundle: Bundle, command: BuildCommand) -> None:
    build_language_model(bundle, OPTIONS, machine=MACHINE)
    assert build_language_model(bundle, OPTIONS, machine=MACHINE).kept
    assert len(command.runs) == 1


def test_other_limits_or_a_damaged_engine_build_again(
    bundle: Bundle, command: BuildCommand
) -> None:
    built = build_language_model(bundle, OPTIONS, machine=MACHINE)
    build_language_model(bundle, LlmBuildOptions(max_frames=4, max_new_tokens=6), machine=MACHINE)
    (built.path / "rank0.engine").write_bytes(b"cut")
    assert not build_language_model(bundle, LlmBuildOptions(4, 6), machine=MACHINE).kept
    assert len(command.runs) == 3


def test_a_failed_build_leaves_its_log_and_the_engine_that_was_there(
    bundle: Bundle, command: BuildCommand
) -> None:
    build_language_model(bundle, OPTIONS, machine=MACHINE)
    before = left_in(bundle)
    command.behave(status=3)
    with pytest.raises(EngineError, match=r"status 3: \[E\] Engine building failed.*llm.log"):
        build_language_model(bundle, LlmBuildOptions(4, 6), machine=MACHINE)
    assert left_in(bundle) == before
    command.behave()
    assert build_language_model(bundle, OPTIONS, machine=MACHINE).kept


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"ranks_missing": 1}, r"rank0.engine was not written"),
        ({"limits": {"max_seq_len": 8}}, r"max_seq_len is 8, asked for was 64"),
        ({"version": "0.9.0"}, r"TensorRT-LLM 0.9.0 is installed.*for 0.12"),
    ],
)
def test_an_engine_that_is_not_what_was_asked_does_not_count(
    bundle: Bundle, command: BuildCommand, behaviour: dict[str, Any], message: str
) -> None:
    command.behave(**behaviour)
    with pytest.raises(EngineError, match=message):
        build_language_model(bundle, OPTIONS, machine=MACHINE)
    assert left_in(bundle) == ["llm.log", "timing.cache"]


def test_a_missing_rank_stops_before_the_build(bundle: Bundle, command: BuildCommand) -> None:
    (bundle.path / "llm" / "rank0.safetensors").unlink()
    with pytest.raises(BundleError, match=r"lacks the rank files .*rank0.safetensors"):
        build_language_model(bundle, OPTIONS, machine=MACHINE)
    assert command.runs == []


def test_swap_counts_for_the_build_as_its_refusal_advises(
    bundle: Bundle, command: BuildCommand
) -> None:
    without_swap = replace(MACHINE, available_bytes=1)
    with_swap = replace(without_swap, free_swap_bytes=64 << 30)
    assert build_language_model(bundle, OPTIONS, machine=with_swap) is not None
    with pytest.raises(ResourceError, match="add swap"):
        build_language_model(bundle, replace(OPTIONS, max_new_tokens=6), machine=without_swap)


def test_too_little_device_memory_stops_before_the_build(
    bundle: Bundle, command: BuildCommand
) -> None:
    with pytest.raises(ResourceError, match=r"device memory.*0.5 GB are available"):
        build_language_model(bundle, LlmBuildOptions(4, 5, device_memory_gb=0.5), machine=MACHINE)
    assert command.runs == []


def test_without_gpu_command_or_language_model_the_reason_is_said(
    tiny_bundle: Bundle, bundle: Bundle, command: BuildCommand
) -> None:
    with pytest.raises(BundleError, match=r"no language model for TensorRT-LLM.*for tensorrt-llm"):
        build_language_model(tiny_bundle, OPTIONS, machine=MACHINE)
    command.path.unlink()
    with pytest.raises(EngineError, match=r"no trtllm-build on the path.*TensorRT-LLM 0.12"):
        build_language_model(bundle, OPTIONS, machine=MACHINE)
    with pytest.raises(EngineError, match=r"no NVIDIA GPU.*a dry run"):
        build_language_model(bundle, OPTIONS, machine=Machine())


def test_an_engine_is_loaded_only_where_it_fits(
    bundle: Bundle, command: BuildCommand, packages: Path
) -> None:
    with pytest.raises(EngineError, match=r"tensorrt_llm is not installed.*needs 0.12"):
        load_generator(bundle, MACHINE)
    install_tensorrt_llm(packages, "0.12.0")
    with pytest.raises(EngineError, match=r"there is no engine.*build it: hicom-edge build"):
        load_generator(bundle, MACHINE)
    build_language_model(bundle, OPTIONS, machine=MACHINE)
    assert load_generator(bundle, MACHINE).llm_dim == 4
    install_tensorrt_llm(packages, "0.12.1")
    with pytest.raises(EngineError, match=r"another version: 0.12.0, here is 0.12.1"):
        load_generator(bundle, MACHINE)
    install_tensorrt_llm(packages, "1.0.0")
    with pytest.raises(EngineError, match=r"TensorRT-LLM 1.0.0 is installed"):
        load_generator(bundle, MACHINE)
    install_tensorrt_llm(packages, "0.12.0")
    with pytest.raises(EngineError, match=r"there is no engine.*orin-8-multiprocessors"):
        load_generator(bundle, Machine(gpus=(replace(ORIN, multiprocessors=8),)))


def test_several_ranks_need_as_many_equal_gpus(
    tiny_bundle: Bundle,
    tmp_path: Path,
    command: BuildCommand,
    packages: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the build, which takes long, and again where the engine is loaded."""
    bundle = with_language_model(tiny_bundle, tmp_path / "split", tp_size=2, vocab_size=8)
    install_tensorrt_llm(packages, "0.12.0")
    other = replace(ORIN, name="Another")
    few, mixed = r"split over 2 GPUs, here are 1; export", r"different ones \(Another, Orin\)"
    for gpus, message in (((ORIN,), few), ((ORIN, other), mixed)):
        machine = Machine(gpus=gpus)
        with pytest.raises(EngineError, match=message):
            build_language_model(bundle, OPTIONS, machine=machine)
        with pytest.raises(EngineError, match=message):
            load_generator(bundle, machine)
    assert command.runs == []
    machine = Machine(gpus=(ORIN, ORIN, other))
    built = build_language_model(bundle, OPTIONS, machine=machine)
    assert (built.path / "rank1.engine").is_file()
    opened: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ExecutorSession, "open", lambda *given: opened.append(given))
    load_generator(bundle, machine).activate()
    assert opened[0][-1].world_size == 2


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"device_memory_gb is 0; pass above 0"):
        LlmBuildOptions(device_memory_gb=0)


def test_the_command_line_shows_the_command(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Bundle, "open", lambda path, progress=None: bundle)
    arguments = ["build", str(bundle.path), "--engine", "tensorrt-llm", "--dry-run"]
    assert main([*arguments, "--max-frames", "4", "--max-new-tokens", "5"]) == 0
    shown = capsys.readouterr().out
    assert "trtllm-build --checkpoint_dir" in shown
    assert "--max_seq_len 64" in shown
    assert main([*arguments[:-1], "--workspace", "5"]) == 2
    assert "not for --engine tensorrt-llm" in capsys.readouterr().err
    assert main(["build", str(bundle.path), "--max-batch-size", "2"]) == 2
    refusal = "--max-batch-size is not for --engine tensorrt; leave it out"
    assert refusal in capsys.readouterr().err

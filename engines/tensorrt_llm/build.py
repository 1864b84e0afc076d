"""A bundle's language model → a TensorRT-LLM engine of this machine.

It knows the order of the work: check the checkpoint, estimate, run `trtllm-build`, check what it
wrote, publish. TensorRT-LLM itself does the building, in a process of its own.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hicom_edge.bundle import sha256_of
from hicom_edge.engines.build_lock import alone_in
from hicom_edge.engines.tensorrt.graph_build import BuiltEngine
from hicom_edge.engines.tensorrt_llm.api import (
    BUILD_COMMAND,
    check_version,
    installed_version,
)
from hicom_edge.engines.tensorrt_llm.built_engine import check_engine
from hicom_edge.engines.tensorrt_llm.command import (
    BuildPlan,
    LlmBuildOptions,
    command_of,
    find_command,
    plan_build,
    recorded_arguments,
    require_command,
)
from hicom_edge.engines.tensorrt_llm.engine_files import (
    FORMAT_VERSION,
    LlmEngineFiles,
    LlmSidecar,
    checkpoint_sha256,
)
from hicom_edge.engines.tensorrt_llm.kernels import check_kernels
from hicom_edge.engines.tensorrt_llm.several_ranks import check_gpus
from hicom_edge.errors import EngineError, ResourceError
from hicom_edge.planning.gpus import Gpu
from hicom_edge.planning.llm.memory import check_device, check_host, llm_memory
from hicom_edge.planning.llm.versions import NAME
from hicom_edge.planning.machine import NO_GPU, Machine, this_machine

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle

__all__ = ["LlmBuildOptions", "build_command", "build_language_model"]

_GRAPH = "llm"
_LONGEST_REASON = 400
# An engine is as large as its weights, with kernels and structure beside them.
_ENGINE_OVERHEAD = 64 << 20
# The limits whose names engine and command share; the table's is spelled differently.
_TABLE_LIMIT = "max_prompt_embedding_table_size"


def build_command(
    bundle: Bundle, options: LlmBuildOptions, machine: Machine | None = None
) -> list[str]:
    """What `build_language_model` would run; nothing is built and no GPU is needed.

    Raises:
        BundleError: the bundle holds no TensorRT-LLM checkpoint, or an incomplete one.
        InputError: limits that the model's context does not hold.
    """
    plan, machine = plan_build(bundle, options), machine or this_machine()
    files = LlmEngineFiles.of(bundle, machine.gpu)
    return command_of(find_command() or BUILD_COMMAND, plan, files.engine, files.place)


def build_language_model(
    bundle: Bundle,
    options: LlmBuildOptions,
    remark: Callable[[str], None] | None = None,
    machine: Machine | None = None,
) -> BuiltEngine:
    """Build the engine for the first GPU of a machine (default: this one), or keep it if it fits.

    Nothing half-written counts: the engine is built beside its place, checked, and moved. A second
    build starts with the timings of the first.

    Raises:
        BundleError: the bundle holds no TensorRT-LLM checkpoint, or an incomplete one.
        EngineError: a GPU for every rank or `trtllm-build` is missing, it is of another version or
            has no kernels for the model, another build is at work, or the build failed.
        ResourceError: memory or disk is too small, by estimate, before anything runs.
    """
    start, plan = time.perf_counter(), plan_build(bundle, options)
    machine = machine or this_machine()
    gpu = _gpu(plan.config.world_size, machine)
    files = LlmEngineFiles.of(bundle, gpu)
    digest = checkpoint_sha256(bundle.manifest, plan.entry.directory)
    kept = _fits(files, plan, digest, gpu)
    if not kept:
        check_kernels(plan.names, plan.config, gpu)
        executable = require_command(plan.names)
        _check_resources(plan, options, machine, bundle.path)
        _build(files, plan, digest, machine, executable, remark)
    sidecar = files.read_sidecar()
    size = sum(size for size, _ in sidecar.files.values())
    seconds = time.perf_counter() - start
    return BuiltEngine(_GRAPH, files.engine, size, seconds, kept, plugin=False)


def _gpu(world_size: int, machine: Machine) -> Gpu:
    """The first GPU, which builds the engines of all ranks."""
    if machine.gpu is None:
        raise EngineError(
            f"{NO_GPU}, and a TensorRT-LLM engine is built on the "
            "GPU it runs on; --dry-run shows the command for that machine"
        )
    check_gpus(world_size, machine.gpus)
    return machine.gpu


def _fits(files: LlmEngineFiles, plan: BuildPlan, digest: str, gpu: Gpu) -> bool:
    try:
        sidecar = files.read_sidecar()
    except EngineError:
        return False
    same = sidecar.limits == plan.limits and sidecar.command == recorded_arguments(plan)
    installed = installed_version() or sidecar.engine_version
    current = sidecar.engine_version == installed
    return same and current and sidecar.belongs_to(digest, gpu) is None


def _check_resources(
    plan: BuildPlan, options: LlmBuildOptions, machine: Machine, directory: Path
) -> None:
    need = llm_memory(plan.config, plan.ranks, plan.limits)
    check_device(plan.config, need, plan.limits, _budget(options, machine))
    check_host(plan.ranks, machine.build_bytes)
    size = need.weights * plan.config.world_size + _ENGINE_OVERHEAD
    free = shutil.disk_usage(directory).free
    if size > free:
        raise ResourceError(
            f"the engine takes about {size / 1e9:.1f} GB, the disk of {directory} has "
            f"{free / 1e9:.1f} GB free; free some space"
        )


def _budget(options: LlmBuildOptions, machine: Machine) -> int | None:
    if options.device_memory_gb is not None:
        return int(options.device_memory_gb * 1e9)
    return machine.device_bytes


def _build(
    files: LlmEngineFiles,
    plan: BuildPlan,
    digest: str,
    machine: Machine,
    executable: str,
    remark: Callable[[str], None] | None,
) -> None:
    """Run the command beside the engine's place, check what it wrote and move it there."""
    try:
        files.place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"{files.place} cannot be written ({error.strerror}); engines go into the bundle: make "
            "it writable, or build in a copy of it"
        ) from error
    with alone_in(files.place):
        for left_behind in files.place.glob(".llm.partial-*"):
            shutil.rmtree(left_behind, ignore_errors=True)  # of a build that was killed
        with TemporaryDirectory(prefix=".llm.partial-", dir=files.place) as directory:
            output = Path(directory) / _GRAPH
            command = command_of(executable, plan, output, files.place)
            if remark is not None:
                remark(f"running {shlex.join(command)}")
                remark(f"it may take long; its log is {files.log}")
            _run(command, files.log, Path(directory))
            files.publish(output, _sidecar(plan, digest, machine, output))


def _run(command: list[str], log: Path, directory: Path) -> None:
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=directory, check=False
            )
        except OSError as error:
            raise EngineError(
                f"{command[0]} does not start ({error}); reinstall TensorRT-LLM"
            ) from error
    if done.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        reason = " ".join(lines[-1].split())[:_LONGEST_REASON] if lines else "it said nothing"
        raise EngineError(
            f"{BUILD_COMMAND} ended with status {done.returncode}: {reason}; the whole log is {log}"
        )


def _sidecar(plan: BuildPlan, digest: str, machine: Machine, output: Path) -> LlmSidecar:
    assert machine.gpu is not None
    limits = asdict(plan.limits)
    limits[_TABLE_LIMIT] = limits.pop("max_multimodal_len")
    version, names = check_engine(output, plan.config, limits)
    check_version(plan.names, version)
    return LlmSidecar(
        format_version=FORMAT_VERSION,
        checkpoint_sha256=digest,
        engine=NAME,
        engine_version=version,
        cuda_version=machine.cuda_version,
        device=machine.gpu.model,
        compute_capability=machine.gpu.capability,
        limits=plan.limits,
        command=recorded_arguments(plan),
        files={n: ((output / n).stat().st_size, sha256_of(output / n)) for n in names},
    )

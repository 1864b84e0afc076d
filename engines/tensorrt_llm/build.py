"""Builds the TensorRT-LLM engine of a bundle's language model.

`trtllm-build` does the work in a process of its own. Before it runs, the checkpoint, the machine's
memory and its disk are checked; afterwards, the engine that it wrote is.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.engines.engine_files import (
    BuiltEngine,
    EngineFiles,
    checkpoint_sha256,
    engine_directory,
    explained_disk_errors,
)
from hicom_edge.engines.sidecar import FORMAT_VERSION, LANGUAGE_MODEL, Expected, Sidecar
from hicom_edge.engines.tensorrt_llm.api import BUILD_COMMAND, check_version, installed_version
from hicom_edge.engines.tensorrt_llm.command import (
    BuildPlan,
    LlmBuildOptions,
    build_options,
    command_of,
    find_command,
    plan_build,
    require_command,
)
from hicom_edge.engines.tensorrt_llm.engine_check import check_engine
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

_UNKNOWN_GPU = "DEVICE"  # stands for the folder's name in a command that is only shown
_LONGEST_REASON = 400
# An engine is as large as its weights, plus kernels and the network's structure.
_ENGINE_OVERHEAD = 64 << 20
# The engine's name for the limit that the command calls max_multimodal_len; the others agree.
_TABLE_LIMIT = "max_prompt_embedding_table_size"


def build_command(
    bundle: Bundle, options: LlmBuildOptions, machine: Machine | None = None
) -> list[str]:
    """The command that `build_language_model` would run; nothing is built, no GPU is needed.

    Raises:
        BundleError: the bundle holds no TensorRT-LLM checkpoint, or an incomplete one.
        InputError: limits that exceed the model's context.
    """
    plan, machine = plan_build(bundle, options), machine or this_machine()
    files = _engine_files(bundle, machine.gpu)
    return command_of(find_command() or BUILD_COMMAND, plan, files.engine, files.directory)


def build_language_model(
    bundle: Bundle,
    options: LlmBuildOptions,
    remark: Callable[[str], None] | None = None,
    machine: Machine | None = None,
) -> BuiltEngine:
    """Build the engine for the first GPU of a machine (default: this one), or keep it if it fits.

    The engine is built in a temporary directory, checked, and moved, so that an interrupted build
    leaves nothing that counts. A second build reuses the kernel timings of the first.

    Raises:
        BundleError: the bundle holds no TensorRT-LLM checkpoint, or an incomplete one.
        EngineError: a GPU for every rank or `trtllm-build` is missing, it is of another version or
            has no kernels for the model, another build is running, or the build failed.
        ResourceError: memory or disk is too small, by estimate, before anything runs.
    """
    start, plan = time.perf_counter(), plan_build(bundle, options)
    machine = machine or this_machine()
    gpu = _gpu(plan.config.world_size, machine)
    files, digest = _engine_files(bundle, gpu), _digest(bundle, plan)
    kept = _fits(files, plan, digest, gpu)
    if not kept:
        check_kernels(plan.names, plan.config, gpu)
        executable = require_command(plan.names)
        _check_resources(plan, options, machine, bundle.path)
        with explained_disk_errors(bundle):
            _build(files, plan, digest, machine, executable, remark)
    size, seconds = files.read_sidecar().size, time.perf_counter() - start
    return BuiltEngine(LANGUAGE_MODEL, files.engine, size, seconds, kept, plugin=False)


def _engine_files(bundle: Bundle, gpu: Gpu | None) -> EngineFiles:
    """Paths are absolute, because the build runs in another directory."""
    place = _UNKNOWN_GPU if gpu is None else gpu.folder
    return EngineFiles(engine_directory(bundle, NAME, place).absolute(), LANGUAGE_MODEL)


def _digest(bundle: Bundle, plan: BuildPlan) -> str:
    return checkpoint_sha256(bundle.manifest, plan.entry.directory)


def _gpu(world_size: int, machine: Machine) -> Gpu:
    """The first GPU, which builds the engines of all ranks."""
    if machine.gpu is None:
        raise EngineError(
            f"{NO_GPU}, and a TensorRT-LLM engine is built on the GPU that runs it; a dry run "
            "shows the command for that machine"
        )
    check_gpus(world_size, machine.gpus)
    return machine.gpu


def _fits(files: EngineFiles, plan: BuildPlan, digest: str, gpu: Gpu) -> bool:
    """Whether an engine of the same source and options is there."""
    try:
        sidecar = files.read_sidecar()
    except EngineError:
        return False
    expected = Expected(digest, NAME, installed_version(), gpu)
    return sidecar.options == build_options(plan) and expected.difference(sidecar) is None


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
    files: EngineFiles,
    plan: BuildPlan,
    digest: str,
    machine: Machine,
    executable: str,
    remark: Callable[[str], None] | None,
) -> None:
    """Run the command, check what it wrote and move it to its place."""
    with files.replacement() as new:
        command = command_of(executable, plan, new.path, files.directory)
        if remark is not None:
            remark(f"running {shlex.join(command)}")
            remark(f"it may take long; its log is {files.log}")
        _run(command, files.log, new.path.parent)
        version = _check_built(plan, new.path)
        files.publish(new, _sidecar(files, plan, digest, machine, version, new.path))


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
        reason = " ".join(lines[-1].split())[:_LONGEST_REASON] if lines else "it printed nothing"
        raise EngineError(
            f"{BUILD_COMMAND} ended with status {done.returncode}: {reason}; the whole log is {log}"
        )


def _check_built(plan: BuildPlan, output: Path) -> str:
    """Check a new engine and return the version of TensorRT-LLM that built it."""
    limits = asdict(plan.limits)
    limits[_TABLE_LIMIT] = limits.pop("max_multimodal_len")
    version = check_engine(output, plan.config, limits)
    check_version(plan.names, version)
    return version


def _sidecar(
    files: EngineFiles, plan: BuildPlan, digest: str, machine: Machine, version: str, output: Path
) -> Sidecar:
    gpu = machine.gpu
    assert gpu is not None
    return Sidecar(
        format_version=FORMAT_VERSION,
        source=LANGUAGE_MODEL,
        source_sha256=digest,
        engine=NAME,
        engine_version=version,
        cuda_version=machine.cuda_version,
        device=gpu.model,
        compute_capability=gpu.capability,
        precision=plan.entry.quantization or plan.entry.dtype,
        plugin_sha256=None,
        version_compatible=False,
        options=build_options(plan),
        profiles=(),
        files=files.describe(output),
    )

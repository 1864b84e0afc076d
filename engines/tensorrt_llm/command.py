"""The `trtllm-build` command for a bundle's language model: its arguments and its executable."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.engines.tensorrt_llm.api import (
    BUILD_COMMAND,
    ApiNames,
    check_version,
    installed_version,
    names_of,
)
from hicom_edge.engines.tensorrt_llm.kernels import reuses_cache
from hicom_edge.errors import BundleError, EngineError
from hicom_edge.option_fields import check_fields, option
from hicom_edge.planning.llm.checkpoint import RankTable, check_checkpoint
from hicom_edge.planning.llm.config import CheckpointConfig, read_config
from hicom_edge.planning.llm.limits import LlmLimits, llm_limits
from hicom_edge.planning.llm.versions import NAME
from hicom_edge.planning.profiles import DEVICE_MEMORY_GB, MAX_FRAMES

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import LanguageModelEntry
    from hicom_edge.engines.sidecar import OptionValue


@dataclass(frozen=True)
class LlmBuildOptions:
    """Options of a build.

    Attributes:
        max_frames: frames of the longest video; None: 128, or the bundle's own number if larger.
        max_new_tokens: tokens of the longest answer; None: 512.
        max_batch_size: questions that are answered at once; None: 1.
        device_memory_gb: device memory that the engine may take, in GB; None: all of it.
    """

    max_frames: int | None = option(None, **MAX_FRAMES)
    max_new_tokens: int | None = option(
        None, "Tokens of the longest answer.", minimum=1, default_means="512"
    )
    max_batch_size: int | None = option(
        None, "Questions that are answered at once.", minimum=1, default_means="1"
    )
    device_memory_gb: float | None = option(None, **DEVICE_MEMORY_GB)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class BuildPlan:
    """Everything that is known about a build before it runs."""

    entry: LanguageModelEntry
    names: ApiNames
    checkpoint: Path
    config: CheckpointConfig
    ranks: list[RankTable]
    limits: LlmLimits


def plan_build(bundle: Bundle, options: LlmBuildOptions) -> BuildPlan:
    """Check the checkpoint and derive the limits.

    Raises:
        BundleError: the bundle has no TensorRT-LLM checkpoint, or an incomplete one.
        InputError: limits that exceed the model's context.
    """
    entry = bundle.manifest.language_model
    if entry is None or entry.runtime != NAME:
        raise BundleError(
            f"{bundle.path} has no language model for TensorRT-LLM; export the checkpoint "
            "for tensorrt-llm"
        )
    checkpoint = (bundle.path / entry.directory).resolve()
    limits = llm_limits(
        bundle.manifest, options.max_frames, options.max_new_tokens, options.max_batch_size
    )
    ranks, names = check_checkpoint(checkpoint), names_of(entry.version)
    return BuildPlan(entry, names, checkpoint, read_config(checkpoint), ranks, limits)


def command_of(executable: str, plan: BuildPlan, output: Path, place: Path) -> list[str]:
    """The argument list; defaults that matter are written out."""
    timings = str(place / "timing.cache")
    arguments = {
        "checkpoint_dir": str(plan.checkpoint),
        "output_dir": str(output),
        "input_timing_cache": timings,
        "output_timing_cache": timings,
        **build_options(plan),
    }
    return [executable, *(part for k, v in arguments.items() for part in (f"--{k}", str(v)))]


def build_options(plan: BuildPlan) -> dict[str, OptionValue]:
    """The arguments that decide what the engine is, which its sidecar records; no paths."""
    return {
        **asdict(plan.limits),
        "max_beam_width": 1,
        "gemm_plugin": "auto",
        "gpt_attention_plugin": "auto",
        # fused attention kernels exist for half precision only
        "context_fmha": _switch(plan.config.dtype != "float32"),
        "use_paged_context_fmha": _switch(reuses_cache(plan.names, plan.config)),
        "remove_input_padding": "enable",
        "workers": 1,
    }


def _switch(on: bool) -> str:
    return "enable" if on else "disable"


def find_command() -> str | None:
    """`trtllm-build` in this Python's environment, or on the path."""
    own = Path(sys.executable).with_name(BUILD_COMMAND)
    return str(own) if own.is_file() else shutil.which(BUILD_COMMAND)


def require_command(names: ApiNames) -> str:
    """The executable of a TensorRT-LLM that fits the checkpoint.

    Raises:
        EngineError: it is missing, or of another version.
    """
    executable, installed = find_command(), installed_version()
    if executable is None:
        raise EngineError(
            f"there is no {BUILD_COMMAND} on the path; install TensorRT-LLM {names.version} (on a "
            "Jetson: NVIDIA's 0.12 container), and run this command where it is installed"
        )
    if installed is not None:
        check_version(names, installed)
    return executable

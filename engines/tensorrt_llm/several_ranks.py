"""Runs a model that is split over several GPUs, in TensorRT-LLM's orchestrator mode.

This process has no rank. It starts an `executorWorker` for each (MPI_Comm_spawn) and forwards
requests, so that callers see no difference to one GPU. (In the other mode, under `mpirun`, every
rank is a copy of the calling program.) Source: cpp/tensorrt_llm/executor/executorImpl.cpp,
initializeOrchestrator; examples/bindings/executor/example_advanced.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from hicom_edge.planning.gpus import Gpu

# Path in the package tensorrt_llm.
_WORKER = Path("bin", "executorWorker")


def check_gpus(world_size: int, gpus: Sequence[Gpu]) -> None:
    """Check that there is a GPU for every rank; rank r runs on device r.

    Raises:
        EngineError: too few GPUs, or different ones (all engines are built on the first).
    """
    if len(gpus) < world_size:
        raise EngineError(
            f"the language model is split over {world_size} GPUs, here are {len(gpus)}; export it "
            "with a smaller tp_size and pp_size",
            "tp_size",
            "pp_size",
        )
    kinds = {(gpu.name, gpu.compute_capability) for gpu in gpus[:world_size]}
    if len(kinds) > 1:
        names = ", ".join(sorted(name for name, _ in kinds))
        raise EngineError(
            f"the language model is split over {world_size} GPUs, and the first {world_size} here "
            f"are different ones ({names}); choose equal ones with CUDA_VISIBLE_DEVICES"
        )


def parallel_arguments(api: Any, world_size: int) -> dict[str, Any]:
    """Arguments of ExecutorConfig that start a process per rank; none for a single rank.

    Raises:
        EngineError: TensorRT-LLM's installation lacks the program that runs a rank.
    """
    if world_size == 1:
        return {}
    worker = Path(importlib.import_module("tensorrt_llm").__file__ or "").parent / _WORKER
    if not worker.is_file():
        raise EngineError(
            f"TensorRT-LLM has no {worker}, which runs a rank of a language model that is split; "
            "reinstall it, or export with tp_size 1 and pp_size 1",
            "tp_size",
            "pp_size",
        )
    parallel = api.ParallelConfig(
        communication_type=api.CommunicationType.MPI,
        communication_mode=api.CommunicationMode.ORCHESTRATOR,
        device_ids=list(range(world_size)),
        orchestrator_config=api.OrchestratorConfig(
            is_orchestrator=True, worker_executable_path=str(worker)
        ),
    )
    return {"parallel_config": parallel}

"""A loaded engine in TensorRT-LLM's executor, which generates for several requests at a time.

The executor bindings are used instead of ModelRunnerCpp, which is built on them: its stream takes
whatever response comes next, so two streams would lose each other's tokens, and in 0.12 it accepts
neither content hashes nor logits processors.
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicom_edge.engines.cancel import calling_on_cancel, check_cancelled
from hicom_edge.engines.tensorrt_llm.api import TOP_K_MAX, ApiNames
from hicom_edge.engines.tensorrt_llm.kernels import reuses_cache
from hicom_edge.engines.tensorrt_llm.several_ranks import parallel_arguments
from hicom_edge.errors import EngineError, InputError, ResourceError

if TYPE_CHECKING:
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.tensorrt_llm.prompt import TablePrompt
    from hicom_edge.engines.text_generator import GenerationRequest
    from hicom_edge.planning.llm.config import CheckpointConfig
    from hicom_edge.planning.llm.limits import LlmLimits

_BINDINGS = "tensorrt_llm.bindings.executor"
# Tokens per block of the paged cache (32 or 64); every sequence may waste part of a block.
_BLOCK = 64
_SEEDS = 1 << 64


@dataclass(frozen=True)
class ExecutorSession:
    """A loaded engine.

    Attributes:
        api: module of the executor's bindings.
        torch: PyTorch, which TensorRT-LLM depends on and whose tensors it uses.
        executor: the loaded engine.
        model: sizes, dtype and ranks of the checkpoint that the engine was built from.
    """

    api: Any
    torch: Any
    executor: Any
    names: ApiNames
    model: CheckpointConfig

    @classmethod
    def open(
        cls, directory: Path, names: ApiNames, limits: LlmLimits, model: CheckpointConfig
    ) -> ExecutorSession:
        """Load the engine of a model, with all its ranks.

        Raises:
            EngineError: TensorRT-LLM does not load, or does not accept the engine.
            ResourceError: not enough device memory.
        """
        try:
            api, torch = importlib.import_module(_BINDINGS), importlib.import_module("torch")
        except (ImportError, OSError) as error:
            raise EngineError(f"TensorRT-LLM does not load ({error}); reinstall it") from error
        config = api.ExecutorConfig(
            max_beam_width=1,
            kv_cache_config=api.KvCacheConfig(**cache_arguments(names, limits, model)),
            # A pass holds a whole prompt. By default 1.x would split prompts, which needs an engine
            # with paged context attention.
            enable_chunked_context=False,
            **parallel_arguments(api, model.world_size),
        )
        decoder_only = api.ModelType.DECODER_ONLY
        try:
            executor = api.Executor(
                model_path=directory, model_type=decoder_only, executor_config=config
            )
        except RuntimeError as error:
            raise _as_our_error(error, f"{directory} does not load") from error
        return cls(api, torch, executor, names, model)

    def generate(
        self, request: GenerationRequest, prompt: TablePrompt, cancel: CancelToken | None = None
    ) -> Generator[int, None, None]:
        """Enqueue a request at the first `next` and yield its tokens.

        The request is cancelled in the executor when the generator is closed or `cancel` is set.
        """
        check_cancelled(cancel)
        request_id = self.executor.enqueue_request(self._request(request, prompt))
        finished = False
        try:
            while not finished:
                for response in self._responses(request_id, cancel):
                    if response.has_error():
                        finished = True
                        raise _as_our_error(response.error_msg, "TensorRT-LLM failed")
                    finished = finished or response.result.is_final
                    yield from response.result.output_token_ids[0]
        finally:
            if not finished:
                self.executor.cancel_request(id=request_id)

    def _responses(self, request_id: int, cancel: CancelToken | None) -> list[Any]:
        """The next responses to a request; a cancelled one is answered without more tokens."""

        def stop() -> None:
            self.executor.cancel_request(id=request_id)

        with calling_on_cancel(cancel, stop):
            responses: list[Any] = self.executor.await_responses(id=request_id)
        check_cancelled(cancel)
        return responses

    def close(self) -> None:
        """Free the engine."""
        self.executor.shutdown()

    def _request(self, request: GenerationRequest, prompt: TablePrompt) -> Any:
        table = self.torch.from_numpy(prompt.table).to(getattr(self.torch, self.model.dtype))
        alone = self.model.world_size == 1  # several ranks run in other processes
        tuning = {"embedding_table": table.cuda() if alone else table}
        if self.names.content_hashes:
            tuning["input_token_extra_ids"] = prompt.extra_ids
        return self.api.Request(
            input_token_ids=prompt.input_ids,
            sampling_config=self.api.SamplingConfig(**sampling_arguments(self.names, request)),
            output_config=self.api.OutputConfig(exclude_input_from_output=True),
            prompt_tuning_config=self.api.PromptTuningConfig(**tuning),
            **request_arguments(self.names, request),
        )


def cache_arguments(names: ApiNames, limits: LlmLimits, model: CheckpointConfig) -> dict[str, Any]:
    """Arguments of KvCacheConfig: a cache as large as the limits need.

    By default the executor takes nine tenths of the free device memory for its cache, but the
    vision tower runs on the same device.
    """
    blocks = limits.max_batch_size * (limits.max_seq_len // _BLOCK + 2)
    return {"enable_block_reuse": reuses_cache(names, model), "max_tokens": blocks * _BLOCK}


def request_arguments(names: ApiNames, request: GenerationRequest) -> dict[str, Any]:
    """Arguments of Request that are plain values."""
    first, *others = request.stop_token_ids or (None,)
    return {
        names.max_tokens: request.max_new_tokens,
        "streaming": True,
        "end_id": first,
        "pad_id": first,
        "stop_words": [[token_id] for token_id in others] or None,
    }


def sampling_arguments(names: ApiNames, request: GenerationRequest) -> dict[str, Any]:
    """Arguments of SamplingConfig that mean the same as in our own sampler.

    Raises:
        InputError: a top_k that TensorRT-LLM would silently limit, or a seed of over 64 bits.
    """
    arguments: dict[str, Any] = {"beam_width": 1}
    if request.repetition_penalty != 1:
        arguments["repetition_penalty"] = request.repetition_penalty
    if request.temperature == 0:
        return {**arguments, "top_k": 1}
    if request.top_k > TOP_K_MAX:
        raise InputError(
            f"top_k is {request.top_k}; TensorRT-LLM draws among at most {TOP_K_MAX}: pass that, "
            "or 0 for all"
        )
    if request.seed is not None and request.seed >= _SEEDS:
        raise InputError(f"the seed is {request.seed}; TensorRT-LLM takes one below 2**64")
    # TensorRT-LLM's default seed is the same for every request; ours is random unless given.
    seed = secrets.randbits(63) if request.seed is None else request.seed
    drawing = {"temperature": request.temperature, "top_p": request.top_p, names.seed: seed}
    return {**arguments, **drawing, **({"top_k": request.top_k} if request.top_k else {})}


def _as_our_error(error: object, what: str) -> EngineError | ResourceError:
    reason = " ".join(str(error).split())[:400]
    if "out of memory" in reason.lower():
        return ResourceError(
            f"{what}: {reason}; build the engine with a smaller max_frames or max_batch_size, or "
            "free device memory",
            "max_frames",
            "max_batch_size",
        )
    return EngineError(f"{what}: {reason}; build the engine again with hicom-edge build")

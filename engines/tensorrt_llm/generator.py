"""The language model in TensorRT-LLM: finds the engine that fits and generates with it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.engines.engine_files import checkpoint_sha256, find_engine
from hicom_edge.engines.sidecar import LANGUAGE_MODEL, Expected, Sidecar
from hicom_edge.engines.tensorrt_llm.api import check_version, installed_version, names_of
from hicom_edge.engines.tensorrt_llm.prompt import table_prompt
from hicom_edge.engines.tensorrt_llm.session import ExecutorSession
from hicom_edge.engines.tensorrt_llm.several_ranks import check_gpus
from hicom_edge.engines.text_generator import GenerationRequest, TextGenerator
from hicom_edge.errors import EngineError, PromptError
from hicom_edge.planning.llm.config import CheckpointConfig, read_config
from hicom_edge.planning.llm.limits import LlmLimits
from hicom_edge.planning.llm.versions import NAME
from hicom_edge.planning.machine import Machine, this_machine

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.cancel import CancelToken

# NumPy has no bfloat16: rows are passed as float32 and converted by PyTorch.
_TABLE_DTYPE = {"float32": "float32", "float16": "float16", "bfloat16": "float32"}


class TensorRtLlmGenerator(TextGenerator):
    """Generates with a built engine; requests that overlap are batched in flight."""

    def __init__(
        self,
        model: str,
        config: CheckpointConfig,
        limits: LlmLimits,
        open_session: Callable[[], ExecutorSession],
    ) -> None:
        self.name = "language model (tensorrt-llm)"
        self.llm_dim = config.hidden_size
        self.dtype = _TABLE_DTYPE[config.dtype]
        self._model, self._limits, self._open = model, limits, open_session
        self._vocab_size = config.vocab_size
        self._session: ExecutorSession | None = None

    def activate(self) -> None:
        """Load the engine; idempotent."""
        if self._session is None:
            self._session = self._open()

    def deactivate(self) -> None:
        """Free the engine; idempotent."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _generate(
        self, request: GenerationRequest, cancel: CancelToken | None
    ) -> Generator[int, None, None]:
        if self._session is None:
            raise EngineError(f"{self.name} is not loaded; use it in a with statement")
        self._check_limits(request)
        prompt = table_prompt(
            request.token_ids,
            request.embeddings,
            self._vocab_size,
            self._model,
            text_in_table=request.repetition_penalty != 1,
        )
        return _until_stop(self._session.generate(request, prompt, cancel), request)

    def _check_limits(self, request: GenerationRequest) -> None:
        prompt, limits = len(request.token_ids), self._limits
        if prompt > limits.max_input_len or prompt + request.max_new_tokens > limits.max_seq_len:
            raise PromptError(
                f"the prompt has {prompt} tokens and {request.max_new_tokens} new ones were asked "
                f"for; the engine was built for {limits.max_input_len} and {limits.max_seq_len} in "
                "all: ask for fewer, take fewer frames, or build it with a larger max_frames or "
                "max_new_tokens",
                "max_frames",
                "max_new_tokens",
            )


def load_generator(bundle: Bundle, machine: Machine | None = None) -> TensorRtLlmGenerator:
    """The language model of a bundle, not yet activated.

    Raises:
        EngineError: no GPU, no TensorRT-LLM, or no engine that fits; the message says what to run.
    """
    entry = bundle.manifest.language_model
    assert entry is not None, "checked by the caller"
    names, installed = names_of(entry.version), installed_version()
    machine = machine or this_machine()
    if machine.gpu is None:
        raise EngineError("TensorRT-LLM needs an NVIDIA GPU: the CUDA driver shows none")
    if installed is None:
        raise EngineError(
            f"tensorrt_llm is not installed; the bundle's language model needs {names.version} "
            "(docs/llm_backends.md says where it comes from)"
        )
    check_version(names, installed)
    config = read_config(bundle.path / entry.directory)
    check_gpus(config.world_size, machine.gpus)
    digest = checkpoint_sha256(bundle.manifest, entry.directory)
    expected = Expected(digest, NAME, installed, machine.gpu)
    files, sidecar = find_engine(bundle, LANGUAGE_MODEL, expected)
    limits = _limits(sidecar, files.sidecar)

    def open_session() -> ExecutorSession:
        files.check_content(sidecar)
        return ExecutorSession.open(files.engine.absolute(), names, limits, config)

    return TensorRtLlmGenerator(digest, config, limits, open_session)


def _limits(sidecar: Sidecar, path: Path) -> LlmLimits:
    try:
        return LlmLimits.from_options(sidecar.options)
    except (KeyError, ValueError, TypeError) as error:
        raise EngineError(
            f"{path} does not say the limits of its engine ({error}); build it again"
        ) from error


def _until_stop(
    tokens: Generator[int, None, None], request: GenerationRequest
) -> Generator[int, None, None]:
    """Tokens before the first stop token; TensorRT-LLM may return the one that ended the answer."""
    with closing(tokens):
        for token_id in tokens:
            if token_id in request.stop_token_ids:
                return
            yield token_id

"""The engines of one bundle, opened when they are first used, each of them replaceable."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

from hicom_edge.engines import AUTO, load_decoder, load_engine, load_text_generator, why_not_built
from hicom_edge.engines.base import DecoderEngine, Runner
from hicom_edge.engines.text_generator import TextGenerator
from hicom_edge.errors import EngineError
from hicom_edge.planning.decoder_form import CONCAT_GRAPH, DECODER_GRAPHS

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Engine, EngineOptions

_Runner = TypeVar("_Runner", bound=Runner)


class EngineSet:
    """Opens each engine once, also if several threads ask for it at the same time.

    Args:
        engines: active engines that stand for the bundle's own, by graph; they are not closed here.
        language_model: likewise for the language model.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str = AUTO,
        options: EngineOptions | None = None,
        engines: Mapping[str, Engine] | None = None,
        language_model: DecoderEngine | TextGenerator | None = None,
    ) -> None:
        self._bundle, self._name, self._options = bundle, engine, options
        self._engines, self._language_model = dict(engines or {}), language_model
        self._lock, self._opened, self._is_closed = RLock(), ExitStack(), False

    def engine(self, graph_name: str) -> Engine:
        """The active engine of a graph.

        Raises:
            BundleError: the bundle has no such graph.
            EngineError: the engine is not available, or the set is closed.
        """
        with self._lock:
            self._check_open()
            if graph_name not in self._engines:
                own = load_engine(self._bundle, graph_name, self._name, self._options)
                self._engines[graph_name] = self._open(own)
            return self._engines[graph_name]

    @property
    def language_model(self) -> DecoderEngine | TextGenerator:
        """The active engine of the `decoder` graph, or the runtime that replaces it."""
        with self._lock:
            self._check_open()
            if self._language_model is None:
                self._language_model = self._open(self._load_language_model())
            return self._language_model

    @property
    def decoder(self) -> DecoderEngine:
        """The language model, which must be an engine that returns logits.

        Raises:
            EngineError: the language model is for a runtime that generates by itself.
        """
        model = self.language_model
        if isinstance(model, TextGenerator):
            raise EngineError(
                f"{model.name} generates text by itself and returns no logits; use a bundle with a "
                f"{CONCAT_GRAPH} graph"
            )
        return model

    def open_all(self) -> None:
        """Open every engine that questions may need.

        Raises:
            BundleError, EngineError, ResourceError: as for the single engines; what was opened
                before is closed.
        """
        try:
            for name in self._bundle.manifest.graphs:
                if name not in DECODER_GRAPHS:
                    self.engine(name)
            _ = self.language_model
        except BaseException:
            self.close()
            raise

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know about how the open engines run here, a line each."""
        reason = why_not_built(self._bundle) if self._name == AUTO else None
        passed_over = (
            () if reason is None else (f"the engines that were built are not used: {reason}",)
        )
        with self._lock:
            runners = [*self._engines.values(), self._language_model]
        own = (remark for runner in runners if runner is not None for remark in runner.remarks)
        return tuple(dict.fromkeys((*passed_over, *own)))

    def close(self) -> None:
        """Close the engines that were opened here; idempotent."""
        with self._lock:
            self._is_closed = True
            self._opened.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineError(f"the engines of {self._bundle.path} are closed; load it again")

    def _open(self, runner: _Runner) -> _Runner:
        self._opened.enter_context(runner)
        return runner

    def _load_language_model(self) -> DecoderEngine | TextGenerator:
        if self._bundle.manifest.language_model is not None:
            return load_text_generator(self._bundle)
        self._bundle.graph(CONCAT_GRAPH)
        return load_decoder(self._bundle, self._name, self._options)

"""Contracts of engines: `Engine` runs one graph of a bundle, `DecoderEngine` the language model.

The base classes check names, dtypes and shapes, so that backends do not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hicom_edge.engines.cancel import check_cancelled
from hicom_edge.engines.device_array import MAIN_MEMORY, DeviceArray, Memory, placed, write
from hicom_edge.engines.specs import check_feed, fits_spec, spec_named
from hicom_edge.errors import EngineError
from hicom_edge.option_fields import check_fields, option
from hicom_edge.planning.machine import Machine, this_machine

if TYPE_CHECKING:
    from typing_extensions import Self

    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import TensorSpec
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray
    from hicom_edge.engines.sequences import TokenSequence

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
    FeedDict: TypeAlias = Mapping[str, Array]
    DeviceFeed: TypeAlias = Mapping[str, AnyArray]


MAX_THREADS = 1024
"""More than any machine has; ONNX Runtime would start any number of threads."""

ENGINE: dict[str, Any] = {"help": "Engine to run on; see hicom-edge doctor."}
THREADS: dict[str, Any] = {
    "help": "CPU threads of one graph.",
    "minimum": 1,
    "maximum": MAX_THREADS,
    "default_means": "the engine's choice",
}
"""Declarations of the options `engine` and `threads`, shared by the classes that have them."""


@dataclass(frozen=True)
class EngineOptions:
    """How engines use the machine; a backend ignores what does not apply to it.

    Attributes:
        threads: CPU threads of one graph; None leaves the choice to the backend.
        machine: the machine that engines run on; None is this one.
    """

    threads: int | None = option(None, **THREADS)
    machine: Machine | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def on_machine(self) -> Machine:
        """Facts about the machine that engines run on."""
        return self.machine or this_machine()


@dataclass(frozen=True)
class Backend:
    """An entry of the registry: one way to run graphs.

    Attributes:
        name: such as "onnxruntime-cpu".
        unavailable: the reason why it cannot run on a machine, or None when it can.
        load_engine: makes the engine of one graph, not yet activated.
        load_decoder: makes the engine of the `decoder` graph, not yet activated.
        unfit: the reason why it cannot run a bundle on a machine, such as engines that were not
            built, or None when it can; by default any bundle is run.
    """

    name: str
    unavailable: Callable[[Machine], str | None]
    load_engine: Callable[[Bundle, str, EngineOptions], Engine]
    load_decoder: Callable[[Bundle, EngineOptions], DecoderEngine]
    unfit: Callable[[Bundle, Machine], str | None] = lambda bundle, machine: None


class Runner(ABC):
    """Loaded by `activate` and freed by `deactivate`; use it as a context manager.

    Attributes:
        remarks: what a user should know about how it runs here, a line each; set by `activate`.
    """

    name: str
    remarks: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self.activate()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.deactivate()

    @abstractmethod
    def activate(self) -> None:
        """Load what is needed to run; idempotent.

        Raises:
            EngineError: the backend does not take the graph.
            ResourceError: not enough memory.
        """

    @abstractmethod
    def deactivate(self) -> None:
        """Free what activate took; idempotent."""


class Engine(Runner):
    """Runs one graph, on host arrays or on arrays that stay on the device.

    Inputs are checked before every run. Several threads may run it at once; an engine that can do
    only one run at a time makes them wait.

    Attributes:
        memory: of its device arrays; set by `activate`.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    memory: Memory = MAIN_MEMORY

    def infer(self, feed_dict: FeedDict, cancel: CancelToken | None = None) -> dict[str, Array]:
        """Run the graph on host arrays and return its outputs by name; the caller owns them.

        Raises:
            EngineError: a name, dtype or fixed dimension does not fit the graph.
            ResourceError: not enough memory for inputs of this size.
            Cancelled: `cancel` was set; the engine can be used again.
        """
        check_feed(self.name, self.inputs, feed_dict)
        check_cancelled(cancel)
        return self._infer(feed_dict, cancel)

    def infer_on_device(
        self,
        feed_dict: DeviceFeed,
        out: Mapping[str, DeviceArray] | None = None,
        cancel: CancelToken | None = None,
    ) -> dict[str, DeviceArray]:
        """Run the graph and leave its outputs in the memory in which they were computed.

        Args:
            feed_dict: host arrays, which are copied to the device, and device arrays, which are
                read without a copy if they are in this engine's memory.
            out: arrays of the caller, in this engine's memory, for some or all outputs; the other
                outputs are allocated, and are valid while the engine is active.

        Raises:
            EngineError: a name, dtype or fixed dimension does not fit the graph.
            ResourceError: not enough memory for inputs of this size.
            Cancelled: `cancel` was set; the engine can be used again.
        """
        check_feed(self.name, self.inputs, feed_dict)
        self._check_out(out or {})
        check_cancelled(cancel)
        return self._infer_on_device(feed_dict, out or {}, cancel)

    def input_dtype(self, name: str) -> str:
        """The dtype of an input of the graph, such as "float16"."""
        return spec_named(self.name, self.inputs, name).dtype

    @abstractmethod
    def _infer(self, feed_dict: FeedDict, cancel: CancelToken | None) -> dict[str, Array]:
        """Run the graph on inputs that fit it; several threads may call it at once."""

    def _infer_on_device(
        self,
        feed_dict: DeviceFeed,
        out: Mapping[str, DeviceArray],
        cancel: CancelToken | None,
    ) -> dict[str, DeviceArray]:
        """By default through host arrays; override it where the engine takes addresses."""
        host = {name: np.asarray(array) for name, array in feed_dict.items()}
        outputs = self._infer(host, cancel)
        for name, target in out.items():
            write(outputs[name], target)
        return {
            name: out[name] if name in out else placed(array, self.memory)
            for name, array in outputs.items()
        }

    def _check_out(self, out: Mapping[str, DeviceArray]) -> None:
        for name, target in out.items():
            spec = spec_named(self.name, self.outputs, name)
            fits = fits_spec(target, spec, {}) and target.memory.place == self.memory.place
            if not fits:
                raise EngineError(
                    f"{self.name}: output {name} cannot be written to {target!r}, expected "
                    f"{spec.dtype} {spec.shape} in {self.memory.place}"
                )


class DecoderEngine(Runner):
    """The language model. Its KV caches belong to the sequences that it hands out.

    Attributes:
        llm_dim: size Dl of one embedding.
        dtype: dtype of the embeddings, such as "float32".
        max_batch: sequences that one run of the engine takes; `step_batch` cuts larger batches.
        max_sequences: sequences that can be open at once, or None where only memory limits them.
        memory: from which embeddings are read without a copy; set by `activate`.
    """

    llm_dim: int
    dtype: str
    max_batch: int = 1
    max_sequences: int | None = None
    memory: Memory = MAIN_MEMORY

    @abstractmethod
    def start(self, cancel: CancelToken | None = None) -> TokenSequence:
        """An empty sequence, which the caller closes.

        Where `max_sequences` are open, waits for one of them to be closed or paused; waiting
        threads get their turn in the order in which they asked.

        Raises:
            EngineError: the engine is not active, or the wait would never end because the calling
                thread itself holds what it would wait for.
            Cancelled: `cancel` was set while waiting.
        """

    def step_batch(
        self, steps: Sequence[tuple[TokenSequence, AnyArray]], cancel: CancelToken | None = None
    ) -> Array:
        """Append embeddings (1, Dl) to each of several sequences of this decoder.

        Returns float32 logits (b, V), row by row what `append` of each sequence alone returns.

        Raises:
            EngineError, ResourceError, Cancelled: as `TokenSequence.append`; close all of the
                sequences, whose lengths are not defined then.
        """
        for sequence, inputs_embeds in steps:
            sequence.check(inputs_embeds)
        logits: list[Array] = []
        for start in range(0, len(steps), self.max_batch):
            check_cancelled(cancel)
            logits += self._step_batch(steps[start : start + self.max_batch], cancel)
        return np.stack(logits)

    def _step_batch(
        self, steps: Sequence[tuple[TokenSequence, AnyArray]], cancel: CancelToken | None
    ) -> Iterable[Array]:
        """Logits (V) of each of at most `max_batch` steps; by default one run after another."""
        return [sequence.append(inputs_embeds, cancel) for sequence, inputs_embeds in steps]

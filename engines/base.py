"""The contract of an engine: something that runs one graph of a bundle.

It knows names, dtypes and shapes, and checks them once. It does not know any backend: `Backend`
says what one must offer, `hicom_edge.engines` lists those that exist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from hicom_edge.errors import EngineError, InputError

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

    from hicom_edge.bundle import Bundle
    from hicom_edge.manifest import TensorSpec

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
    FeedDict: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class EngineOptions:
    """How engines use the machine; every backend takes what applies to it.

    Attributes:
        threads: CPU threads of one graph; None leaves the choice to the backend.
    """

    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}; pass 1 or more, or leave it out")


@dataclass(frozen=True)
class Backend:
    """One way to run graphs, as the registry sees it.

    Attributes:
        name: what `--engine` calls it.
        unavailable: the reason why it cannot run on this machine, or None when it can.
        load_engine: makes the engine of one graph, not yet activated.
        load_decoder: makes the engine of the `decoder` graph, not yet activated.
        unfit: the reason why it cannot run this bundle, such as engines that were not built, or
            None when it can; by default any bundle is run.
    """

    name: str
    unavailable: Callable[[], str | None]
    load_engine: Callable[[Bundle, str, EngineOptions], Engine]
    load_decoder: Callable[[Bundle, EngineOptions], DecoderEngine]
    unfit: Callable[[Bundle], str | None] = lambda bundle: None


class Runner(ABC):
    """What is loaded on `activate` and freed on `deactivate`; use as a context manager."""

    name: str

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
    """Runs one graph on host arrays; inputs are checked before every run."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def infer(self, feed_dict: FeedDict) -> dict[str, Array]:
        """Run the graph on host arrays and return its outputs by name; the caller owns them.

        Raises:
            EngineError: a name, dtype or fixed dimension does not fit the graph.
            ResourceError: not enough memory for inputs of this size.
        """
        check_feed(self.name, self.inputs, feed_dict)
        return self._infer(feed_dict)

    def input_dtype(self, name: str) -> str:
        """The dtype that the graph takes for an input, such as "float16"."""
        return _spec(self.name, self.inputs, name).dtype

    @abstractmethod
    def _infer(self, feed_dict: FeedDict) -> dict[str, Array]:
        """Run the graph on inputs that fit it."""


class DecoderEngine(Runner):
    """The language model over a KV cache that stays where the engine runs.

    One sequence at a time: `prefill` starts a new one, `step` goes on with it.

    Attributes:
        llm_dim: size Dl of one embedding.
        dtype: dtype of the embeddings, such as "float32".
        sequence: how many sequences were started, so that a caller sees when its own was replaced.
    """

    llm_dim: int
    dtype: str
    sequence: int = 0

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens in the KV cache."""

    def prefill(self, inputs_embeds: Array) -> Array:
        """Start a sequence with embeddings (l, Dl); returns float32 logits (V) of the last one.

        Raises:
            EngineError: the embeddings do not fit the graph.
            ResourceError: not enough memory for a prompt of this length.
        """
        self._check(inputs_embeds)
        self.reset()
        self.sequence += 1
        return self._append(inputs_embeds)

    def step(self, inputs_embeds: Array) -> Array:
        """Append embeddings (l, Dl), usually l = 1; returns float32 logits (V) of the last one."""
        self._check(inputs_embeds)
        return self._append(inputs_embeds)

    @abstractmethod
    def reset(self) -> None:
        """Empty the KV cache."""

    @abstractmethod
    def _append(self, inputs_embeds: Array) -> Array:
        """Run embeddings that fit after the KV cache, which grows by l."""

    def _check(self, inputs_embeds: Array) -> None:
        shape = inputs_embeds.shape
        fits = inputs_embeds.ndim == 2 and shape[0] > 0 and shape[1] == self.llm_dim
        if not fits or inputs_embeds.dtype.name != self.dtype:
            raise EngineError(
                f"{self.name}: embeddings are {inputs_embeds.dtype.name} {shape}, "
                f"expected {self.dtype} (l, {self.llm_dim}) with l of at least 1"
            )


def check_feed(name: str, inputs: tuple[TensorSpec, ...], feed_dict: FeedDict) -> None:
    """Names, dtypes, ranks and fixed dimensions fit, and a dynamic axis has one size everywhere."""
    expected = [spec.name for spec in inputs]
    if set(expected) != set(feed_dict):
        raise EngineError(f"{name}: got inputs {sorted(feed_dict)}, expected {sorted(expected)}")
    sizes: dict[str, int] = {}
    for spec in inputs:
        array = feed_dict[spec.name]
        fits = array.dtype.name == spec.dtype and array.ndim == len(spec.shape)
        for size, dim in zip(array.shape, spec.shape, strict=False):
            fits = fits and size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
        if not fits:
            raise EngineError(
                f"{name}: input {spec.name} is {array.dtype.name} {array.shape}, "
                f"expected {spec.dtype} {spec.shape}"
            )


def _spec(name: str, specs: tuple[TensorSpec, ...], wanted: str) -> TensorSpec:
    for spec in specs:
        if spec.name == wanted:
            return spec
    raise EngineError(f"{name} has no tensor {wanted!r}; it has {[spec.name for spec in specs]}")

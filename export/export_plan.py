"""Which graphs a checkpoint becomes, built and ready to be written.

It knows which part of the configuration decides what. It reads no weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from hicom_edge.bundle.manifest import ModelSpec
from hicom_edge.errors import ExportError
from hicom_edge.export.compressor_graph import build_compressor_graph, image_graph_differs
from hicom_edge.export.decoder_cache import CONCAT, SCATTER, check_form
from hicom_edge.export.decoder_graph import DecoderPlan, build_decoder_graph, plan_decoder
from hicom_edge.export.description import model_spec
from hicom_edge.export.edge_llm import edge_llm_bytes
from hicom_edge.export.guide_graph import build_guide_graph, plan_guide
from hicom_edge.export.opsets import Family, Precision
from hicom_edge.export.save import weight_bytes
from hicom_edge.export.tensorrt_llm.checkpoint_options import TensorRTLLMOptions
from hicom_edge.export.tensorrt_llm.convert import plan_conversion
from hicom_edge.export.vision_graph import VisionPlan, build_vision_graph, plan_vision
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.planning.decoder_form import SCATTER_GRAPH
from hicom_edge.planning.llm.layout import checkpoint_bytes


@dataclass(frozen=True)
class Plan:
    """What will be exported: the graphs are built, none of their weights has been read.

    language_model_bytes: what the language model takes in another runtime's format; 0 where it is
        the `decoder` graph.
    """

    checkpoint: Checkpoint
    precision: Precision
    family: Family
    vision: VisionPlan
    decoder: DecoderPlan
    graphs: dict[str, ir.Model]
    language_model_bytes: int

    @property
    def embedding_bytes(self) -> int:
        """The bytes of the token embedding's values."""
        return self.decoder.vocab_size * self.decoder.hidden_size * self.precision.numpy.itemsize

    @property
    def total_bytes(self) -> int:
        """The bytes of all weights of the bundle."""
        graphs = sum(weight_bytes(g) for n, g in self.graphs.items() if n != SCATTER_GRAPH)
        return graphs + self.embedding_bytes + self.language_model_bytes


def plan_export(
    checkpoint: Checkpoint,
    precision: Precision,
    family: Family,
    tensorrt_llm: TensorRTLLMOptions | None = None,
    decoder_form: str = CONCAT,
    edge_llm: bool = False,
) -> Plan:
    """Build all graphs of a checkpoint; their weights stay where they are.

    With `tensorrt_llm` or `edge_llm` the language model is no graph. The decoder's scatter form
    comes beside the concat form and shares its weights.

    Raises:
        ExportError: the model cannot be expressed in the requested form.
    """
    if tensorrt_llm is not None and edge_llm:
        raise ExportError(
            "a bundle has one language model; choose TensorRT-LLM or TensorRT-Edge-LLM"
        )
    is_graph = tensorrt_llm is None and not edge_llm
    if check_form(decoder_form) != CONCAT and not is_graph:
        raise ExportError(
            f"decoder form {decoder_form!r} is a form of the decoder graph, which the checkpoint "
            "for another runtime stands in for; leave --decoder-form or --llm out"
        )
    form, llm = (precision, family), checkpoint.part("llm")
    vision_plan, decoder_plan = _plan_ends(checkpoint)
    graphs = {"vision": build_vision_graph(checkpoint.part("vision"), vision_plan, *form)}
    if checkpoint.uses_guide:
        pooled = checkpoint.hicom.use_guide != "fine"
        guide_plan = plan_guide(checkpoint.tower_config, pooled)
        graphs["guide"] = build_guide_graph(checkpoint.part("guide"), guide_plan, *form)
    graphs["compressor"] = build_compressor_graph(checkpoint, *form)
    if image_graph_differs(checkpoint):
        graphs["compressor_image"] = build_compressor_graph(checkpoint, *form, modality="image")
    llm_bytes = 0
    if is_graph:
        graphs["decoder"] = build_decoder_graph(llm, decoder_plan, *form)
        if decoder_form == SCATTER:
            scatter = build_decoder_graph(llm, decoder_plan, *form, form=SCATTER)
            graphs[SCATTER_GRAPH] = scatter
    elif tensorrt_llm is None:
        llm_bytes = edge_llm_bytes(checkpoint)
    else:
        llm_bytes = checkpoint_bytes(plan_conversion(checkpoint, tensorrt_llm))
    return Plan(checkpoint, precision, family, vision_plan, decoder_plan, graphs, llm_bytes)


def model_of(checkpoint: Checkpoint) -> ModelSpec:
    """What the manifest of a checkpoint's bundle says of the model.

    Raises:
        ExportError: the model cannot be expressed in graphs.
    """
    return model_spec(checkpoint, *_plan_ends(checkpoint))


def _plan_ends(checkpoint: Checkpoint) -> tuple[VisionPlan, DecoderPlan]:
    """The vision tower and the language model, between which everything else fits."""
    hicom, tower = checkpoint.hicom, checkpoint.tower_config
    return (
        plan_vision(tower, hicom.select_layer, "patch", checkpoint.uses_guide),
        plan_decoder(hicom.llm().to_dict(), checkpoint.part("llm")),
    )

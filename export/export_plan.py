"""The graphs of a checkpoint, built and ready to be written; weights are not read."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from hicom_edge.bundle.manifest import ModelSpec
from hicom_edge.export.compressor_graph import build_compressor_graph, image_graph_differs
from hicom_edge.export.decoder_cache import CACHES
from hicom_edge.export.decoder_graph import DecoderPlan, build_decoder_graph, plan_decoder
from hicom_edge.export.description import model_spec
from hicom_edge.export.export_options import (
    CONCAT,
    SCATTER,
    DecoderForm,
    ExportOptions,
    OnnxDecoderOptions,
)
from hicom_edge.export.guide_graph import build_guide_graph, plan_guide
from hicom_edge.export.language_model_files import language_model_bytes
from hicom_edge.export.opsets import Family, Precision, family_for_opset
from hicom_edge.export.save import weight_bytes
from hicom_edge.export.vision_graph import VisionPlan, build_vision_graph, plan_vision
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.planning.decoder_form import SCATTER_GRAPH


@dataclass(frozen=True)
class Plan:
    """The graphs of an export, built, with their weights not yet read.

    Attributes:
        language_model_bytes: of the language model in another runtime's format; 0 where it is the
            `decoder` graph.
    """

    checkpoint: Checkpoint
    options: ExportOptions
    vision: VisionPlan
    decoder: DecoderPlan
    graphs: dict[str, ir.Model]
    language_model_bytes: int

    @property
    def precision(self) -> Precision:
        """Of the graphs' weights and activations."""
        return Precision(self.options.dtype)

    @property
    def family(self) -> Family:
        """The operator family of the graphs."""
        return family_for_opset(self.options.opset)

    @property
    def embedding_bytes(self) -> int:
        """The bytes of the token embedding's values."""
        return self.decoder.vocab_size * self.decoder.hidden_size * self.precision.numpy.itemsize

    @property
    def total_bytes(self) -> int:
        """The bytes of all weights of the bundle."""
        graphs = sum(weight_bytes(g) for n, g in self.graphs.items() if n != SCATTER_GRAPH)
        return graphs + self.embedding_bytes + self.language_model_bytes


def plan_export(checkpoint: Checkpoint, options: ExportOptions) -> Plan:
    """Build all graphs of a checkpoint without reading their weights.

    Raises:
        ExportError: the model cannot be expressed with these options.
    """
    vision, decoder = _plan_ends(checkpoint)
    graphs = _encoder_graphs(checkpoint, options, vision)
    if isinstance(options.language_model, OnnxDecoderOptions):
        graphs |= _decoder_graphs(checkpoint, options, decoder, options.language_model.form)
    llm_bytes = language_model_bytes(checkpoint, options.language_model)
    return Plan(checkpoint, options, vision, decoder, graphs, llm_bytes)


def _encoder_graphs(
    checkpoint: Checkpoint, options: ExportOptions, vision: VisionPlan
) -> dict[str, ir.Model]:
    """Vision tower, guide encoder and compressor."""
    form = Precision(options.dtype), family_for_opset(options.opset)
    graphs = {"vision": build_vision_graph(checkpoint.part("vision"), vision, *form)}
    if checkpoint.uses_guide:
        guide = plan_guide(checkpoint.tower_config, pooled=checkpoint.hicom.use_guide != "fine")
        graphs["guide"] = build_guide_graph(checkpoint.part("guide"), guide, *form)
    graphs["compressor"] = build_compressor_graph(checkpoint, *form)
    if image_graph_differs(checkpoint):
        graphs["compressor_image"] = build_compressor_graph(checkpoint, *form, modality="image")
    return graphs


def _decoder_graphs(
    checkpoint: Checkpoint, options: ExportOptions, decoder: DecoderPlan, form: DecoderForm
) -> dict[str, ir.Model]:
    """The decoder, and with the scatter form a second graph over the same weights."""
    forms = (CONCAT,) if form == CONCAT else (CONCAT, SCATTER)
    precision, family = Precision(options.dtype), family_for_opset(options.opset)
    weights = checkpoint.part("llm")
    return {
        CACHES[each].graph_name: build_decoder_graph(weights, decoder, precision, family, each)
        for each in forms
    }


def model_of(checkpoint: Checkpoint) -> ModelSpec:
    """The model section of the manifest that a checkpoint's bundle gets.

    Raises:
        ExportError: the model cannot be expressed in graphs.
    """
    return model_spec(checkpoint, *_plan_ends(checkpoint))


def _plan_ends(checkpoint: Checkpoint) -> tuple[VisionPlan, DecoderPlan]:
    """Plans of the vision tower and the language model."""
    hicom, tower = checkpoint.hicom, checkpoint.tower_config
    return (
        plan_vision(tower, hicom.select_layer, "patch", checkpoint.uses_guide),
        plan_decoder(hicom.llm().to_dict(), checkpoint.part("llm")),
    )

"""The stages after the towers: which parts learn in each, and how fast (paper, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hicom_edge.model.hicom import HicomModel
from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.loop import ParameterGroup


@dataclass(frozen=True)
class Stage:
    """Peak learning rate of each part of the model in one stage; None: the part is frozen.

    The demo's language model has no pre-training, so it learns in every stage; the paper's learns
    in the last stage only.

    Attributes:
        towers: of the vision tower's pooling head and of the text tower.
        global_only: share of batches without the local tokens. A language model without
            pre-training learns to read the local tokens, which say where things are, and then
            hardly uses the global ones.
    """

    name: str
    steps: int
    compressor: float
    injection: float
    llm: float | None
    towers: float | None
    global_only: float


def demo_stages(options: DemoOptions) -> tuple[Stage, Stage, Stage]:
    """Alignment, conditional pre-training, instruction tuning."""
    first, second, third = options.alignment_rate, options.conditional_rate, options.tuning_rate
    scale = options.text_scale
    return (
        Stage("alignment", options.alignment_steps, first, first, first, None, 0.5),
        Stage(
            "conditional", options.conditional_steps, second, second, second, scale * second, 0.4
        ),
        Stage("tuning", options.tuning_steps, third, third, third, scale * third, 0.3),
    )


def learning_modules(model: HicomModel) -> dict[str, nn.Module]:
    """The modules that any stage may train, by name."""
    modules: dict[str, nn.Module] = {"compressor": model.compressor, "llm": model.llm}
    if model.guide_encoder is not None:
        head = model.vision_tower.vision_model.head
        modules |= {"head_norm": head.layernorm, "head_mlp": head.mlp}
        modules["text_tower"] = model.guide_encoder.text_model
    return modules


def parameter_groups(model: HicomModel, stage: Stage) -> list[ParameterGroup]:
    """The parameters that learn in the stage, with their rates."""
    injection: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.compressor.named_parameters():
        (injection if "guide_injector" in name else rest).append(parameter)
    groups: list[tuple[list[nn.Parameter], float | None]]
    groups = [(rest, stage.compressor), (injection, stage.injection)]
    groups.append((list(model.llm.parameters()), stage.llm))
    for name in ("head_norm", "head_mlp", "text_tower"):
        module = learning_modules(model).get(name)
        groups.append((list(module.parameters()) if module is not None else [], stage.towers))
    return [ParameterGroup(part, rate) for part, rate in groups if part and rate is not None]

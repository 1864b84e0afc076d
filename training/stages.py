"""The stages after the towers: what learns, at which rate, from which loss.

Knows alignment, conditional pre-training and instruction tuning (paper, section 3.4). Refuses to
know where batches come from (batches.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hicom_edge.model.hicom import HicomModel
from hicom_edge.training.batches import IGNORED, Batch
from hicom_edge.training.loop import ParameterGroup
from hicom_edge.training.options import DemoOptions


@dataclass(frozen=True)
class Stage:
    """Peak learning rate of every part in one stage; None: the part stays as it is.

    The demo's language model starts from nothing, so it learns in every stage; the paper's is
    pre-trained and learns in the last stage only.
    """

    name: str
    steps: int
    compressor: float
    injection: float
    llm: float | None
    towers: float | None
    """Of the vision tower's pooling head and of the text tower."""
    global_only: float
    """Share of batches without the local tokens. A language model from nothing learns to read the
    local tokens, which say where things are, and hardly ever looks at the global ones again."""


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
    """The parts that any stage may change, by name."""
    modules: dict[str, nn.Module] = {"compressor": model.compressor, "llm": model.llm}
    if model.guide_encoder is not None:
        head = model.vision_tower.vision_model.head
        modules |= {"head_norm": head.layernorm, "head_mlp": head.mlp}
        modules["text_tower"] = model.guide_encoder.text_model
    return modules


def parameter_groups(model: HicomModel, stage: Stage) -> list[ParameterGroup]:
    """The stage's parameters with their rates."""
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


def visual_tokens(model: HicomModel, batch: Batch) -> Tensor:
    """(n, tokens, d_llm): every instruction's view of its clip, or its global tokens alone."""
    tokens = _all_visual_tokens(model, batch)
    spec = model.compressor.spec.global_
    return tokens[:, -spec.num_queries :] if batch.global_only and spec is not None else tokens


def _all_visual_tokens(model: HicomModel, batch: Batch) -> Tensor:
    if model.guide_encoder is None:
        per_clip = len(batch.guide_ids) // len(batch.features)
        tokens = model.compressor(batch.features, None, None, batch.modality)
        return tokens.repeat_interleave(per_clip, dim=0)
    head = model.vision_tower.vision_model.head
    embeddings = batch.hidden + head.mlp(head.layernorm(batch.hidden))
    return model.compressor(
        batch.features, embeddings, model.guide_encoder(batch.guide_ids), batch.modality
    )


def answer_loss(model: HicomModel, batch: Batch) -> Tensor:
    """Mean cross-entropy of the answers' tokens."""
    embed = model.llm.get_input_embeddings()
    visual = visual_tokens(model, batch)
    head = embed(batch.head_ids).expand(len(visual), -1, -1)
    inputs = torch.cat([head, visual, embed(batch.tail_ids)], dim=1)
    hidden = model.llm.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    # the tail's tokens are predicted from one position earlier
    start = head.shape[1] + visual.shape[1] - 1
    wanted = batch.labels != IGNORED
    logits = model.llm.lm_head(hidden[:, start:-1][wanted])
    return F.cross_entropy(logits, batch.labels[wanted])


@torch.no_grad()
def greedy_answers(
    model: HicomModel, batch: Batch, stop_id: int, limit: int = 24
) -> list[list[int]]:
    """Greedy token ids for n prompts of any length; the batch's labels are not looked at.

    Prompts of equal length are answered together, without padding.
    """
    visual = visual_tokens(model, batch)
    lengths = (batch.labels != IGNORED).int().argmax(1)
    answers: list[list[int]] = [[] for _ in range(len(visual))]
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero().flatten()
        found = _greedy(model, batch, visual, rows, int(length), stop_id, limit)
        for row, ids in zip(rows.tolist(), found, strict=True):
            answers[row] = ids
    return answers


def _greedy(
    model: HicomModel,
    batch: Batch,
    visual: Tensor,
    rows: Tensor,
    length: int,
    stop_id: int,
    limit: int,
) -> list[list[int]]:
    embed = model.llm.get_input_embeddings()
    head = embed(batch.head_ids).expand(len(rows), -1, -1)
    inputs = torch.cat([head, visual[rows], embed(batch.tail_ids[rows, :length])], dim=1)
    cache, steps = None, []
    for _ in range(limit):
        out = model.llm(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
        cache, token = out.past_key_values, out.logits[:, -1].argmax(-1)
        steps.append(token)
        inputs = embed(token)[:, None]
        if all(bool((torch.stack(steps)[:, i] == stop_id).any()) for i in range(len(rows))):
            break
    ids = torch.stack(steps, 1).tolist()
    return [row[: row.index(stop_id)] if stop_id in row else row for row in ids]

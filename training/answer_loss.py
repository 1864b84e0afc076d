"""The forward pass of instruction tuning: visual tokens, the loss of answers, greedy answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hicom_edge.model.hicom import HicomModel
from hicom_edge.training.batches import Batch
from hicom_edge.training.prompt_encoder import IGNORED


def visual_tokens(model: HicomModel, batch: Batch) -> Tensor:
    """(n, tokens, d_llm): the visual tokens of each instruction, or their global ones alone."""
    tokens = _all_visual_tokens(model, batch)
    spec = model.compressor.spec.global_
    return tokens[:, -spec.num_queries :] if batch.global_only and spec is not None else tokens


def _all_visual_tokens(model: HicomModel, batch: Batch) -> Tensor:
    if model.guide_encoder is None:
        per_clip = len(batch.guide_ids) // len(batch.features)
        tokens = model.compressor(batch.features, None, None, batch.modality)  # (b, tokens, d_llm)
        return tokens.repeat_interleave(per_clip, dim=0)
    head = model.vision_tower.vision_model.head
    embeddings = batch.hidden + head.mlp(head.layernorm(batch.hidden))  # E: (b, t, h, w, d)
    return model.compressor(
        batch.features, embeddings, model.guide_encoder(batch.guide_ids), batch.modality
    )


def answer_loss(model: HicomModel, batch: Batch) -> Tensor:
    """Mean cross-entropy over the tokens of the answers."""
    embed = model.llm.get_input_embeddings()
    visual = visual_tokens(model, batch)
    head = embed(batch.head_ids).expand(len(visual), -1, -1)  # (n, m, d_llm)
    inputs = torch.cat([head, visual, embed(batch.tail_ids)], dim=1)  # (n, m + tokens + s, d_llm)
    hidden = model.llm.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    # a token of the tail is predicted at the position before it
    start = head.shape[1] + visual.shape[1] - 1
    wanted = batch.labels != IGNORED
    logits = model.llm.lm_head(hidden[:, start:-1][wanted])
    return F.cross_entropy(logits, batch.labels[wanted])


@torch.no_grad()
def greedy_answers(
    model: HicomModel, batch: Batch, stop_id: int, limit: int = 24
) -> list[list[int]]:
    """Greedy token ids of n answers, without the stop token; `limit` new tokens at most.

    The labels only tell where each prompt ends. Prompts of equal length are answered together,
    because the model is given no attention mask for padding.
    """
    visual = visual_tokens(model, batch)
    lengths = (batch.labels != IGNORED).int().argmax(1)
    answers: list[list[int]] = [[] for _ in range(len(visual))]
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero().flatten()
        ids_of_rows = _greedy(model, batch, visual, rows, int(length), stop_id, limit)
        for row, ids in zip(rows.tolist(), ids_of_rows, strict=True):
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

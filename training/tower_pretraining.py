"""Pre-training of the SigLIP towers on single frames, without a pre-trained model.

There are two losses: SigLIP's sigmoid image-text loss, and the same loss for every patch, on the
embeddings E that the compressor compares with the guide. Without the second, the guide never finds
its patch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import SiglipConfig, SiglipModel

from hicom_edge.progress import Progress
from hicom_edge.training.corpus import Corpus
from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.guide_tokenizer import GuideTokenizer
from hicom_edge.training.loop import Loop, ParameterGroup
from hicom_edge.training.siglip_files import tower_config
from hicom_edge.training.tower_batches import TowerBatch, tower_batch
from hicom_edge.training.tower_model import TowerPretraining

_SEEN, _UNSEEN = 0.15, 0.05
"""A patch shows an object if it covers at least the first share, and does not below the second.

Patches in between are left out of the loss."""


def pretrain_towers(
    options: DemoOptions,
    corpus: Corpus,
    tokenizer: GuideTokenizer,
    state: Path,
    progress: Progress,
    device: torch.device,
) -> SiglipModel:
    """Train both towers; steps that the state on disk already has are not repeated."""
    torch.manual_seed(options.seed)
    config = SiglipConfig.from_dict(tower_config(options, tokenizer.vocab_size))
    model = TowerPretraining(config).to(device)
    loop = Loop(
        name="towers",
        state=state,
        fingerprint=options.tower_fingerprint,
        modules={"towers": model},
        groups=[ParameterGroup(list(model.parameters()), options.tower_rate)],
        steps=options.tower_steps,
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        save_every=options.save_every,
        progress=progress,
    )
    model.train()
    loop.run(
        lambda step: tower_loss(model, tower_batch(options, corpus, tokenizer, step).to(device))
    )
    return model.siglip.eval()


def tower_loss(model: TowerPretraining, batch: TowerBatch) -> Tensor:
    """The image-text loss plus five times the patch loss."""
    by_frame, by_patch = model(batch.pixel_values, batch.text_ids)  # (b, k), (b, k, p)
    # (b, k, 1, objects) * (b, 1, p, objects): the largest share of the patch that any object the
    # text refers to covers
    share = (batch.referents[:, :, None, :] * batch.coverage[:, None, :, :]).amax(-1)
    share = share * batch.places
    clear = ((share >= _SEEN) | (share <= _UNSEEN)).float() * batch.judged[..., None]
    patch = F.binary_cross_entropy_with_logits(
        by_patch,
        (share >= _SEEN).float(),
        weight=clear,
        pos_weight=torch.tensor(4.0, device=share.device),  # few patches show a given object
    )
    frame = F.binary_cross_entropy_with_logits(
        by_frame, (share.amax(-1) >= 0.3).float(), weight=batch.judged
    )
    return frame + 5 * patch

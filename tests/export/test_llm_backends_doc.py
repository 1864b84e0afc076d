"""The recipe of docs/llm_backends.md makes a plain checkpoint, which transformers reads."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from hicom_edge.model.loading import load_checkpoint

DOC = Path(__file__).parents[2] / "docs" / "llm_backends.md"


def test_the_language_model_alone_is_a_plain_checkpoint(variant_checkpoint, tmp_path):
    source, target = variant_checkpoint("release"), tmp_path / "plain"
    text = DOC.read_text(encoding="utf-8")
    [recipe] = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "TARGET" in code]
    exec(recipe, {"CHECKPOINT": str(source), "TARGET": str(target)})
    plain = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    input_ids = torch.arange(7, 27)[None]
    with torch.inference_mode():
        expected = load_checkpoint(source).llm(input_ids=input_ids).logits[0].numpy()
        logits = plain(input_ids=input_ids).logits[0].numpy()
    assert type(plain).__name__ == "Qwen2ForCausalLM"
    assert plain.config.model_type == "qwen2"
    assert np.abs(logits - expected).max() < 5e-3 * np.abs(expected).max()  # stored in float16
    assert (target / "tokenizer.json").is_file()

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from hicom_edge.errors import ExportError
from hicom_edge.export.decoder_graph import DecoderPlan, build_decoder_graph, plan_decoder
from hicom_edge.export.opsets import CURRENT, PLAIN, Precision
from hicom_edge.export.rope import inverse_frequencies, rope_settings

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False)),
    "qwen2-tied": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "llama-wide-heads": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=16)),
    "llama-one-kv-head": lambda: LlamaForCausalLM(
        LlamaConfig(**{**SIZES, "num_key_value_heads": 1})
    ),
    "llama3-rope": lambda: LlamaForCausalLM(
        LlamaConfig(**{**SIZES, "num_key_value_heads": 4}, rope_parameters=LLAMA3)
    ),
    "llama-linear-rope": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SIZES, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
        )
    ),
}


@dataclass
class Decoder:
    """A decoder graph with its cache, one call at a time."""

    session: object
    plan: DecoderPlan
    precision: Precision

    def __post_init__(self):
        self.reset()

    def reset(self):
        shape = (1, self.plan.num_kv_heads, 0, self.plan.head_dim)
        layers = range(self.plan.num_layers)
        self.past = {
            f"past_key_values.{i}.{kind}": np.zeros(shape, self.precision.numpy)
            for i in layers
            for kind in ("key", "value")
        }
        self.length = 0

    def __call__(self, embeds: torch.Tensor, indices: list[int]) -> np.ndarray:
        """Append embeddings (l, d); logits (k, vocab) of the rows in `indices`."""
        positions = np.arange(self.length, self.length + len(embeds))
        feed = {
            "inputs_embeds": embeds[None].numpy().astype(self.precision.numpy),
            "position_ids": positions[None],
            "logit_indices": np.array(indices),
            "past_lengths": np.array([self.length]),
            **self.past,
        }
        names = [output.name for output in self.session.get_outputs()]
        out = dict(zip(names, self.session.run(names, feed), strict=True))
        self.past = {k: out[k.replace("past_key_values", "present")] for k in self.past}
        self.length += len(embeds)
        return out["logits"][0]


@pytest.fixture(scope="module", params=MODELS)
def llm(request):
    torch.manual_seed(3)
    model = MODELS[request.param]().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def weights_of(model, part_of):
    part = part_of(model)
    if model.config.tie_word_embeddings:
        del part["lm_head.weight"]
    return part


@pytest.fixture
def decoder(llm, form, part_of, session):
    weights = weights_of(llm, part_of)
    plan = plan_decoder(llm.config.to_dict(), weights)
    return Decoder(session(build_decoder_graph(weights, plan, *form)), plan, form[0])


def embeddings(length: int) -> torch.Tensor:
    return torch.randn(length, 32, generator=torch.Generator().manual_seed(length))


def test_prefill_logits_equal_transformers(llm, decoder, assert_close):
    for length in (1, 11):
        decoder.reset()
        x = embeddings(length)
        logits = decoder(x, list(range(length)))
        assert logits.dtype == np.float32
        expected = llm(inputs_embeds=x[None]).logits[0]
        assert_close(f"logits of {length} tokens", logits, expected, decoder.precision)


def test_steps_over_the_cache_equal_one_prefill(llm, decoder, assert_close):
    x = embeddings(12)
    expected = llm(inputs_embeds=x[None]).logits[0]
    for chunk in (4, 1, 3, 1, 1, 2):
        place = decoder.length
        logits = decoder(x[place : place + chunk], [chunk - 1])
        last = expected[place + chunk - 1][None]
        assert_close(f"logits after {place + chunk} tokens", logits, last, decoder.precision)


def test_only_the_rows_asked_for_get_logits(llm, decoder, assert_close):
    x = embeddings(9)
    expected = llm(inputs_embeds=x[None]).logits[0]
    logits = decoder(x, [8, 2, 2])
    assert_close("logits", logits, expected[[8, 2, 2]], decoder.precision)


def test_present_is_the_past_and_the_new_tokens(llm, decoder):
    x = embeddings(6)
    decoder(x[:4], [3])
    before = {name: value.copy() for name, value in decoder.past.items()}
    decoder(x[4:], [1])
    for name, value in decoder.past.items():
        assert value.shape == (1, decoder.plan.num_kv_heads, 6, decoder.plan.head_dim)
        assert value.dtype == decoder.precision.numpy
        np.testing.assert_array_equal(value[:, :, :4], before[name])


@pytest.mark.parametrize("family", [CURRENT, PLAIN])
def test_long_positions_turn_as_in_transformers(part_of, session, assert_close, family):
    """Angles of thousands of radians, with a factor that stretches low frequencies alone."""
    torch.manual_seed(5)
    sizes = {**SIZES, "max_position_embeddings": 40000}
    model = LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters=LLAMA3)).eval()
    weights = part_of(model)
    plan = plan_decoder(model.config.to_dict(), weights)
    graph = session(build_decoder_graph(weights, plan, Precision.FP32, family))
    positions = torch.tensor([[0, 1, 30000]])
    x = embeddings(3)[None]
    keys = model(inputs_embeds=x, position_ids=positions, use_cache=True).past_key_values
    empty = np.zeros((1, 2, 0, 8), np.float32)
    past = {f"past_key_values.{i}.{k}": empty for i in (0, 1) for k in ("key", "value")}
    feed = {
        "inputs_embeds": x.numpy(),
        "position_ids": positions.numpy(),
        "logit_indices": np.array([0]),
        "past_lengths": np.array([0]),
        **past,
    }
    (key,) = graph.run(["present.0.key"], feed)
    assert_close("present.0.key", key, keys.layers[0].keys, Precision.FP32)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 1e6, "rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 1.0}},
    ],
)
def test_old_and_new_rope_keys_mean_the_same(config):
    frequencies = inverse_frequencies(rope_settings(config), 8)
    np.testing.assert_allclose(frequencies, 1e6 ** (-np.arange(0, 8, 2) / 8), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
            "rope type 'yarn' is not supported; expected default, linear, llama3",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is not 1"),
        ({"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window is true"),
        ({"hidden_act": "relu6"}, "activation 'relu6' is not supported; expected one of .*'silu'"),
    ],
)
def test_what_the_graph_does_not_express_is_refused(part_of, change, message):
    model = MODELS["llama-one-kv-head"]()
    config = {**model.config.to_dict(), **change}
    with pytest.raises(ExportError, match=message):
        weights = part_of(model)
        build_decoder_graph(weights, plan_decoder(config, weights), Precision.FP32, CURRENT)

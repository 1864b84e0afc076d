"""The reduced chat template says what the checkpoint's Jinja template says, or export refuses."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hicom_edge.bundle.manifest import ChatSpec
from hicom_edge.errors import ExportError
from hicom_edge.export.chat_template import (
    chat_spec,
    find_template,
    jinja_renderer,
    reduce_template,
    render_reduced,
)

CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set text = '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
DATED = (
    "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}"
    "{% else %}{% set day = '26 Jul 2024' %}{% endif %}"
    "{{ bos_token }}{{ 'SYS Today: ' + day + '\\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|end|>' }}"
    "{% for m in messages %}{{ m.role + ': ' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'ASSISTANT: ' + m.content + '</s>' }}"
    "{% else %}{{ m.role | upper + ': ' + m.content + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}"
    "{% set s = '<<SYS>>' + messages[0].content + '<</SYS>>' %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + (s if loop.first else '') + m.content + ' [/INST]' }}"
    "{% else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHATML
)
NUMBERED = (
    "{% for m in messages %}{{ loop.index | string + m.role + ': ' + m.content + '\\n' }}"
    "{% endfor %}"
)


@cache
def reduced(source: str, bos: str = "<bos>") -> ChatSpec:
    return reduce_template(jinja_renderer((source, {"bos_token": bos}), Path("ckpt")))


def test_qwen_has_its_default_system_prompt(reference_checkpoint: Path) -> None:
    config = json.loads((reference_checkpoint / "tokenizer_config.json").read_text())
    assert chat_spec(reference_checkpoint, config) == ChatSpec(
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        assistant="<|im_start|>assistant\n{content}<|im_end|>\n",
        generation_prompt="<|im_start|>assistant\n",
    )


def test_llama_3_has_its_begin_of_text_and_trims() -> None:
    spec = reduced(LLAMA3, "<|begin_of_text|>")
    assert spec.start == "<|begin_of_text|>"
    assert spec.default_system is None
    assert spec.trim
    assert spec.user == "<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>"


def test_a_dated_template_uses_its_own_fixed_date() -> None:
    spec = reduced(DATED)
    assert spec.default_system == ""
    assert spec.system == "<bos>SYS Today: 26 Jul 2024\n{content}<|end|>"


@pytest.mark.parametrize("source", [CHATML, LLAMA3, DATED, VICUNA])
@settings(deadline=None)
@given(texts=st.lists(st.text(), min_size=1, max_size=6), has_system=st.booleans())
def test_the_reduced_form_says_the_same_on_any_texts(
    source: str, texts: list[str], has_system: bool
) -> None:
    render = jinja_renderer((source, {"bos_token": "<bos>"}), Path("ckpt"))
    turns = texts[: len(texts) - 1 + len(texts) % 2]
    messages = [(("user", "assistant")[i % 2], text) for i, text in enumerate(turns)]
    if has_system:
        messages = [("system", texts[0]), *messages]
    spec = reduced(source)
    assert render_reduced(spec, messages) == render(messages, True)


def test_rendering_equals_that_of_transformers(reference_checkpoint: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = json.loads((reference_checkpoint / "tokenizer_config.json").read_text())
    template = find_template(reference_checkpoint, config)
    original = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(reference_checkpoint / "tokenizer.json"), bos_token="<bos>"
    )
    for source, tokens in [template, (LLAMA3, {"bos_token": "<bos>"})]:
        render = jinja_renderer((source, tokens), Path("ckpt"))
        messages = [("system", "Be brief."), ("user", " a "), ("assistant", "<b>"), ("user", "c")]
        expected = original.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages],
            chat_template=source,
            tokenize=False,
            add_generation_prompt=True,
        )
        assert render(messages, True) == expected


@pytest.mark.parametrize("source", [LLAMA2, NUMBERED, "{{ messages | length }}"])
def test_a_template_that_cannot_be_reduced_is_refused(source: str) -> None:
    with pytest.raises(ExportError, match="cannot be written as fixed text around each message"):
        reduced(source)


@pytest.mark.parametrize("source", [NO_SYSTEM, "{% for %}", "{{ messages[9].content.x }}"])
def test_a_template_that_cannot_be_rendered_is_refused(source: str) -> None:
    with pytest.raises(ExportError, match=r"the chat template of ckpt cannot be rendered for \["):
        reduced(source)


def test_the_template_is_found_where_checkpoints_keep_it(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert find_template(tmp_path, {"chat_template": "S"}) == ("S", {})
    assert find_template(tmp_path, {"chat_template": named, "eos_token": {"content": "E"}}) == (
        "D",
        {"eos_token": "E"},
    )
    (tmp_path / "chat_template.jinja").write_text("J")
    assert find_template(tmp_path, {"chat_template": "S", "bos_token": None}) == ("J", {})


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="has no chat template; expected chat_template in"):
        find_template(tmp_path, {})

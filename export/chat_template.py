"""Reduces a checkpoint's Jinja chat template to fixed text around each message.

The runtime then needs no template engine. The reduced form is checked against the template on
conversations of several shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hicom_edge.bundle.manifest import ChatSpec
from hicom_edge.errors import ExportError

if TYPE_CHECKING:
    from jinja2 import Template

Messages: TypeAlias = "Sequence[tuple[str, str]]"
"""(role, content) pairs; the roles are system, user and assistant."""
Render: TypeAlias = "Callable[[Messages, bool], str]"
"""Renders the template: messages, and whether the start of the answer is added."""

_SYSTEM, _USER, _ANSWER, _AGAIN = "sysprobe0", "userprobe1", "answerprobe2", "againprobe3"
_TEXTS = (
    "What is it?",
    " two  spaces\n",
    "\n{content} {{x}} 你好",
    "<|im_end|> </s> {% raw %}",
    "0",
)
_SHAPES = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)


def chat_spec(directory: Path, tokenizer_config: dict[str, Any]) -> ChatSpec:
    """The chat template of the checkpoint in `directory`.

    Raises:
        ExportError: there is none, it cannot be rendered, or it cannot be reduced.
    """
    return reduce_template(jinja_renderer(find_template(directory, tokenizer_config), directory))


def find_template(directory: Path, tokenizer_config: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The template's source and the special tokens that it may write."""
    path = directory / "chat_template.jinja"
    source = tokenizer_config.get("chat_template")
    if path.is_file():
        source = path.read_text(encoding="utf-8")
    if isinstance(source, list):
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    if not isinstance(source, str):
        raise ExportError(
            f"{directory} has no chat template; expected chat_template in tokenizer_config.json or "
            "a file chat_template.jinja: copy it from the base language model"
        )
    tokens = {
        name: token["content"] if isinstance(token, dict) else token
        for name, token in tokenizer_config.items()
        if name.endswith("_token") and isinstance(token, str | dict)
    }
    return source, tokens


def jinja_renderer(template: tuple[str, dict[str, str]], where: Path) -> Render:
    """Renders as transformers' apply_chat_template does, but without `strftime_now`.

    Templates that write today's date then use their own fixed date, so that exporting the same
    checkpoint on two days gives the same bundle.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> str:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
    environment.globals["raise_exception"] = refuse
    source, tokens = template

    @cache
    def compiled() -> Template:
        return environment.from_string(source)

    def render(messages: Messages, opens_answer: bool) -> str:
        try:
            return compiled().render(
                messages=[{"role": role, "content": content} for role, content in messages],
                add_generation_prompt=opens_answer,
                tools=None,
                documents=None,
                **tokens,
            )
        except (TemplateError, TypeError) as error:
            roles = [role for role, _ in messages]
            raise ExportError(
                f"the chat template of {where} cannot be rendered for {roles} ({error}); "
                "expected one that takes an optional system message, then user and assistant turns"
            ) from error

    return render


def reduce_template(render: Render) -> ChatSpec:
    """Find the text around each message, and check it on conversations of several shapes.

    Raises:
        ExportError: no such form reproduces the template.
    """
    for trim in (False, True):
        spec = _probe(render, trim)
        if spec is not None and _reproduces(render, spec):
            return spec
    raise ExportError(
        "the chat template cannot be written as fixed text around each message, because the text "
        "depends on a message's position or neighbours; use a template like ChatML's or Llama 3's"
    )


def render_reduced(spec: ChatSpec, messages: Messages) -> str:
    """The chat text of `messages`, and the start of the answer, from the reduced form."""
    if messages[0][0] != "system" and spec.default_system is not None:
        messages = [("system", spec.default_system), *messages]
    around = {"system": spec.system, "user": spec.user, "assistant": spec.assistant}
    text = spec.start
    for role, content in messages:
        opening, _, closing = around[role].partition("{content}")
        text += opening + (content.strip() if spec.trim else content) + closing
    return text + spec.generation_prompt


def _probe(render: Render, trim: bool) -> ChatSpec | None:
    """Read the text around each probe message; None if the pieces are inconsistent."""
    messages = [("system", _SYSTEM), ("user", _USER), ("assistant", _ANSWER), ("user", _AGAIN)]
    whole = _between(render(messages, True), [text for _, text in messages])
    answered = _between(render(messages[:3], False), [_SYSTEM, _USER, _ANSWER])
    asked = _between(render(messages[:2], False), [_SYSTEM, _USER])
    alone = _between(render(messages[1:2], True), [_USER])
    if whole is None or answered is None or asked is None or alone is None:
        return None
    user_end, answer_end = asked[-1], answered[-1]
    before_system, system_to_user, user_to_answer, answer_to_user, tail = whole
    user_start = _without_prefix(answer_to_user, answer_end)
    answer_start = _without_prefix(user_to_answer, user_end)
    prompt = _without_prefix(tail, user_end)
    if user_start is None or answer_start is None or prompt is None:
        return None
    if not system_to_user.endswith(user_start) or not alone[0].endswith(user_start):
        return None
    system_end = system_to_user[: len(system_to_user) - len(user_start)]
    bare = alone[0][: len(alone[0]) - len(user_start)]
    default, start = _default_system(bare, before_system, system_end)
    opening = _without_prefix(before_system, start)
    if opening is None:
        return None
    return ChatSpec(
        default_system=default,
        system=f"{opening}{{content}}{system_end}",
        user=f"{user_start}{{content}}{user_end}",
        assistant=f"{answer_start}{{content}}{answer_end}",
        generation_prompt=prompt,
        start=start,
        trim=trim,
    )


def _default_system(bare: str, opening: str, closing: str) -> tuple[str | None, str]:
    """(default system message, text at the start) from the beginning of a chat without system."""
    fits = len(bare) >= len(opening) + len(closing)
    if opening + closing and fits and bare.startswith(opening) and bare.endswith(closing):
        return bare[len(opening) : len(bare) - len(closing)], ""
    return None, bare


def _reproduces(render: Render, spec: ChatSpec) -> bool:
    for shift in range(len(_TEXTS)):
        for roles in _SHAPES:
            texts = [_TEXTS[(shift + place) % len(_TEXTS)] for place in range(len(roles))]
            messages = list(zip(roles, texts))
            if render_reduced(spec, messages) != render(messages, True):
                return False
    return True


def _between(text: str, marks: Sequence[str]) -> list[str] | None:
    """The text around `marks`, which must occur once each and in this order."""
    pieces = []
    for mark in marks:
        if text.count(mark) != 1:
            return None
        piece, _, text = text.partition(mark)
        pieces.append(piece)
    return [*pieces, text]


def _without_prefix(text: str, prefix: str) -> str | None:
    return text[len(prefix) :] if text.startswith(prefix) else None

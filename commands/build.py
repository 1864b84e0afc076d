"""`hicom-edge build`: TensorRT engines for this machine's GPU."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from hicom_edge.bundle import Bundle
from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import Json
from hicom_edge.commands.derived_options import given_options, with_options
from hicom_edge.commands.flags import flag_of
from hicom_edge.commands.progress_display import display
from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines
from hicom_edge.engines.tensorrt_llm import build as llm
from hicom_edge.errors import InputError
from hicom_edge.option_fields import option_fields, options_from

LLM = "tensorrt-llm"
_ENGINES = f"[tensorrt|tensorrt-rtx|{LLM}]"


@with_options(given=given_options(BuildOptions, llm.LlmBuildOptions, leave_out=("engine",)))
def build(
    bundle: Annotated[Path, typer.Argument(help="Bundle to build engines for.")],
    engine: Annotated[
        str,
        typer.Option(help=f"Engine to build; {LLM} for the language model.", metavar=_ENGINES),
    ] = "tensorrt",
    *,
    given: dict[str, Any],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help=f"{LLM}: print the command and build nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Build TensorRT engines for this machine.

    The same command continues an interrupted build.

    Example: hicom-edge build bundles/hicom-7b --max-frames 64
    """
    if engine == LLM:
        _build_language_model(bundle, given, dry_run, json)
        return
    _refuse_foreign(BuildOptions, given, engine)
    if dry_run:
        raise InputError(f"--dry-run is for --engine {LLM}; leave it out")
    options = options_from(BuildOptions, {"engine": engine, **given})
    opened = Bundle.open(bundle, display)
    built = build_engines(opened, options, display, terminal.remark)
    terminal.say_json(built) if json else terminal.show_engines(built)


def _build_language_model(bundle: Path, given: dict[str, Any], dry_run: bool, json: bool) -> None:
    _refuse_foreign(llm.LlmBuildOptions, given, LLM)
    options = options_from(llm.LlmBuildOptions, given)
    opened = Bundle.open(bundle, display)
    if dry_run:
        command = llm.build_command(opened, options)
        terminal.say_json(command) if json else terminal.say(shlex.join(command))
        return
    built = [llm.build_language_model(opened, options, terminal.remark)]
    terminal.say_json(built) if json else terminal.show_engines(built)


def _refuse_foreign(cls: type[Any], given: dict[str, Any], engine: str) -> None:
    own = {field.name for field in option_fields(cls)}
    if foreign := [flag_of(name) for name in given if name not in own]:
        verb = "is" if len(foreign) == 1 else "are"
        raise InputError(f"{', '.join(foreign)} {verb} not for --engine {engine}; leave it out")

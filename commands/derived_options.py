"""Options of the command line, derived from the fields of the library's option classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from hicom_edge.commands.flags import flag_of
from hicom_edge.option_fields import OptionField, option_fields

Verb = Callable[..., None]
_METAVARS = {int: "<int>", float: "<float>", Path: "<path>"}


@dataclass(frozen=True)
class Group:
    """Options that a verb takes from one or more classes.

    Attributes:
        fields: the options; one that several classes have is listed once.
        cls: what the verb receives; None: a dictionary of the options that were given.
    """

    fields: tuple[OptionField, ...]
    cls: type[Any] | None

    def collect(self, values: dict[str, Any]) -> Any:
        """Take this group's options out of the values of the command line."""
        given = {}
        for field in self.fields:
            value = values.pop(_parameter_name(field))
            if value not in (None, False, [], ()):
                given[field.name] = _from_command_line(field, value)
        return given if self.cls is None else self.cls(**given)


def options_of(cls: type[Any], *names: str) -> Group:
    """The options of a class, or those that are named; the verb receives an instance."""
    fields = option_fields(cls)
    return Group(tuple(f for f in fields if f.name in names or not names), cls)


def given_options(*classes: type[Any], leave_out: tuple[str, ...] = ()) -> Group:
    """The options of several classes; the verb receives a dictionary of those that were given."""
    fields = {field.name: field for cls in reversed(classes) for field in option_fields(cls)}
    ordered = dict.fromkeys(field.name for cls in classes for field in option_fields(cls))
    return Group(tuple(fields[name] for name in ordered if name not in leave_out), None)


def with_options(**groups: Group) -> Callable[[Verb], Verb]:
    """Replace parameters of a verb by the options of a group each, in the same place."""

    def decorate(verb: Verb) -> Verb:
        @wraps(verb)
        def run(**values: Any) -> None:
            verb(**{name: group.collect(values) for name, group in groups.items()}, **values)

        hints = get_type_hints(verb, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(verb).parameters.items():
            if name in groups:
                parameters += map(_parameter, groups[name].fields)
            else:
                parameters.append(
                    parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
                )
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameter(field: OptionField) -> inspect.Parameter:
    flags = [flag_of(field.name), *filter(None, [field.info.short])]
    option = typer.Option(*flags, help=_help(field), metavar=_metavar(field), show_default=False)
    hint: Any = str | None
    default = None
    if field.kind is bool:
        hint, default, option.metavar = bool, False, None
    elif field.kind is tuple:
        hint = list[str] | None
    annotation = Annotated[hint, option]
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(_parameter_name(field), kind, default=default, annotation=annotation)


def _parameter_name(field: OptionField) -> str:
    """Typer derives the flag from it, and errors name it."""
    return flag_of(field.name).removeprefix("--").replace("-", "_")


def _from_command_line(field: OptionField, value: Any) -> Any:
    if field.kind is bool:
        return value
    return tuple(value) if field.kind is tuple else field.from_text(value)


def _help(field: OptionField) -> str:
    """The help text with the range and the default, such as "[1 or more; default: 128]"."""
    details = [] if field.choices or field.kind not in (int, float) else [field.limits]
    default = field.info.default_means
    if not default and field.kind not in (bool, tuple) and field.default is not None:
        default = str(field.default)
    if default:
        details.append(f"default: {default}")
    facts = "; ".join(detail for detail in details if detail)
    return f"{field.info.help} [{facts}]" if facts else field.info.help


def _metavar(field: OptionField) -> str:
    words = [str(choice) for choice in field.choices]
    if field.kind is not None and (field.choices or field.info.none_text):
        words.append(field.limits or _METAVARS.get(field.kind, "<str>"))
    if field.info.none_text:
        words.append(field.info.none_text)
    if words:
        return f"[{'|'.join(words)}]"
    if field.info.unit == "seconds":
        return "<s or h:mm:ss>"
    return _METAVARS.get(field.kind or str, "<str>")

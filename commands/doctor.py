"""`hicom-edge doctor`: the engines that this machine can run."""

from __future__ import annotations

from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import Json


def doctor(json: Json = False) -> None:
    """Show which engines this machine has, and why the others are missing.

    Example: hicom-edge doctor
    """
    from hicom_edge.engines.doctor import examine

    diagnosis = examine()
    terminal.say_json(diagnosis) if json else terminal.show_diagnosis(diagnosis)

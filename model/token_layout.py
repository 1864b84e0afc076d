"""Flattens the grid of compressed tokens to the sequence in the prompt, with newline tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hicom_edge.errors import InputError

NEWLINE_POSITIONS = ("grid", "frame", "one_token", "no_token")


@dataclass(frozen=True)
class TokenLayout:
    """The checkpoint's `mm_patch_merge_type` and `mm_newline_position`."""

    patch_merge_type: str = "flat"
    newline_position: str = "one_token"

    def newline_place(self, modality: str, has_newline: bool, anyres: bool = False) -> str:
        """Position of newline tokens: "grid", "frame", "one_token" or "no_token".

        Raises:
            InputError: an unknown position.
        """
        if not self.patch_merge_type.startswith("spatial"):
            return "no_token"
        if modality == "image":
            if anyres:
                return "grid"
            return "one_token" if has_newline else "no_token"
        if self.newline_position not in NEWLINE_POSITIONS:
            raise InputError(
                f"mm_newline_position is {self.newline_position!r}, "
                f"expected one of {list(NEWLINE_POSITIONS)}"
            )
        return self.newline_position


def arrange_tokens(
    tokens: Tensor,
    layout: TokenLayout,
    modality: str,
    image_newline: Tensor | None = None,
    anyres: bool = False,
) -> Tensor:
    """Flatten tokens (b, t, h, w, d) to (b, n, d), with newline tokens (d) at their positions.

    With modality "text" no visual tokens are in the prompt, and spatial layouts return the grid.

    Raises:
        InputError: the layout asks for newline tokens and the model has none.
    """
    if modality == "text" and layout.patch_merge_type.startswith("spatial"):
        return tokens
    place = layout.newline_place(modality, image_newline is not None, anyres)
    if place == "no_token":
        return tokens.flatten(1, 3)
    if image_newline is None:
        raise InputError(
            f"mm_newline_position {place!r} needs the tensor image_newline, which the checkpoint "
            "lacks; use no_token"
        )
    if place == "grid":
        return _append(tokens, image_newline).flatten(1, 3)
    if place == "frame":
        return _append(tokens.flatten(2, 3), image_newline).flatten(1, 2)
    return _append(tokens.flatten(1, 3), image_newline)


def _append(rows: Tensor, newline: Tensor) -> Tensor:
    """Append the newline at the end of every row (..., n, d)."""
    column = newline.to(rows).expand(*rows.shape[:-2], 1, -1)
    return torch.cat([rows, column], dim=-2)

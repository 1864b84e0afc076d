from __future__ import annotations

import pytest
import torch
from reference_data import read_arrays, read_json

from hicom_edge.errors import InputError
from hicom_edge.model.token_layout import TokenLayout, arrange_tokens

DATA = read_json("components/post_process.json")


def arranged(case: dict) -> torch.Tensor:
    arrays = read_arrays("components/post_process.npz")
    tokens = torch.from_numpy(arrays[case["input"]])[None]
    newline = torch.from_numpy(arrays["image_newline"]) if case["image_newline"] else None
    position = case["mm_newline_position"]
    layout = TokenLayout(
        case["mm_patch_merge_type"], *([] if position in (None, "DEFAULT") else [position])
    )
    return arrange_tokens(tokens, layout, case["modal"], newline, case["is_anyres"])[0]


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda c: c["name"])
def test_layout_equals_the_authors(case: dict) -> None:
    expected = read_arrays("components/post_process.npz")[case["out"]]
    torch.testing.assert_close(arranged(case), torch.from_numpy(expected), rtol=0, atol=0)


def without_newline() -> list[dict]:
    return [c for c in DATA["errors"] if "NoneType" in c["error"]]


@pytest.mark.parametrize("case", without_newline(), ids=lambda c: c["name"])
def test_a_layout_without_its_newline_tensor_is_refused(case: dict) -> None:
    with pytest.raises(InputError, match="needs the tensor image_newline"):
        arranged(case)


def test_an_unknown_newline_position_lists_the_known_ones() -> None:
    layout = TokenLayout("spatial", "bogus")
    with pytest.raises(InputError, match=r"'bogus', expected one of \['grid', 'frame'"):
        arrange_tokens(torch.zeros(1, 1, 2, 2, 4), layout, "video")

from __future__ import annotations

import pytest
from reference_data import read_json

from hicom_edge.errors import CheckpointError
from hicom_edge.model import build_compressor
from hicom_edge.model.projector_type import parse_projector_type

TABLE = read_json("components/parser.json")["table"]
BUILT = [row for row in TABLE if "error" not in row]
REFUSED = [row for row in TABLE if "error" in row]


def row_id(row: dict) -> str:
    return f"{row['string']}-{row['config_use_guide']}"


@pytest.mark.parametrize("row", BUILT, ids=row_id)
def test_the_string_gives_the_authors_structure(row: dict) -> None:
    spec = parse_projector_type(row["string"], row["config_use_guide"])
    if "local" in row:
        local, part = row["local"], spec.local
        assert (part.temporal_kernel, part.spatial_kernel) == (
            local["temporal_kernel"],
            local["spatial_kernel"],
        )
        assert part.injection == local["guide"]
        assert (part.adapt_query, part.adapt_key, part.adapt_value, part.adapt_guide) == tuple(
            local[f"adapt_{x}"] for x in "qkvg"
        )
    if "global" in row:
        assert spec.global_.num_queries == row["global"]["num_queries"]
        assert spec.global_.injection == row["global"]["guide"]
        assert spec.global_.adapt_guide == row["global"]["adapt_g"]
    assert (spec.local is None, spec.global_ is None) == ("local" not in row, "global" not in row)


@pytest.mark.parametrize("row", BUILT, ids=row_id)
def test_the_string_gives_the_authors_tensors(row: dict) -> None:
    compressor = build_compressor(row["string"], row["config_use_guide"], 128, 128, 48)
    shapes = {name: list(t.shape) for name, t in compressor.state_dict().items()}
    assert shapes == row["state_dict"]


@pytest.mark.parametrize("row", REFUSED, ids=row_id)
def test_a_string_without_its_sizes_is_refused(row: dict) -> None:
    with pytest.raises(CheckpointError, match=f"mm_projector_type is {row['string']!r}"):
        parse_projector_type(row["string"], row["config_use_guide"])


@pytest.mark.parametrize(
    ("text", "ignored"),
    [("local43_global32_coarse", "_coarse"), ("local43_global32_guidecoarse", "")],
)
def test_a_suffix_without_effect_is_reported(text: str, ignored: str) -> None:
    assert parse_projector_type(text, "direct").ignored == ignored

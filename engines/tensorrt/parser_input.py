"""Changes that a build makes to a graph's bytes before TensorRT parses them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.engines.onnx_bytes import with_fixed_axis, without_function
from hicom_edge.engines.tensorrt.api import prefers_functions
from hicom_edge.planning.decoder_form import CAPACITY_AXIS, PAST, SCATTER_GRAPH

if TYPE_CHECKING:
    from hicom_edge.engines.tensorrt.api import Flavour
    from hicom_edge.planning.profiles import Profile

# Domain and name of the node that the plugin implements, and of the equivalent local function.
PLUGIN_DOMAIN, PLUGIN_NAME = "hicom.edge", "GroupedAttention"


def model_for_parser(
    path: Path, graph: str, profile: Profile, flavour: Flavour, version: str, plugin: bool
) -> bytes | None:
    """The model's bytes for this version of the parser; None if the file needs no change.

    Args:
        profile: shapes to build for, which give the capacity of the scatter form's cache.
        plugin: the grouped-attention plugin is loaded.
    """
    drops = plugin and prefers_functions(flavour, version)
    if not drops and graph != SCATTER_GRAPH:
        return None
    model = path.read_bytes()
    if drops:
        model = without_function(model, PLUGIN_DOMAIN, PLUGIN_NAME)
    if graph == SCATTER_GRAPH:
        past = next(shapes for name, shapes in profile.items() if name.startswith(PAST))
        model = with_fixed_axis(model, CAPACITY_AXIS, past.maximum[2])
    return model

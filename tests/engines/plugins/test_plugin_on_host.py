"""What the plugin class promises TensorRT, called on the host; only headers are needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import hicom_edge.engines.plugins

SOURCES = Path(hicom_edge.engines.plugins.__file__).parent


def test_the_plugin_keeps_what_the_interface_promises(
    gxx: Callable[..., None], cuda_include: Path, tmp_path: Path
) -> None:
    headers = os.environ.get("TENSORRT_INCLUDE_DIR")
    if headers is None:
        pytest.skip("TENSORRT_INCLUDE_DIR does not name TensorRT's headers")
    program = tmp_path / "plugin"
    gxx(
        *("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        *(f"-I{SOURCES}", "-isystem", headers, "-isystem", str(cuda_include)),
        *("plugin_on_host.cpp", str(SOURCES / "grouped_attention_plugin.cpp"), "-o", str(program)),
    )
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr

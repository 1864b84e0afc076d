"""TensorRT's calibration cache: its text byte for byte, back again, and clear refusals."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge.calibration.scales.tensorrt_cache import cache_text, read_cache, write_cache
from hicom_edge.errors import InputError


def test_the_text_is_tensorrts_own() -> None:
    # 1/127 is 0x3c010204 in float32, 127/127 is 0x3f800000.
    text = cache_text({"pixel_values": 1.0, "/layer 0/MatMul: out": 127.0})
    assert text == (
        "TRT-100300-EntropyCalibration2\npixel_values: 3c010204\n/layer 0/MatMul: out: 3f800000\n"
    )


@pytest.mark.parametrize(
    ("version", "number"),
    [("8.5.1", "8501"), ("8.6.1.6", "8601"), ("10.3.0", "100300"), ("10.16.2", "101602")],
)
def test_the_header_numbers_versions_as_tensorrt_does(version: str, number: str) -> None:
    text = cache_text({"x": 1.0}, version)
    assert text.startswith(f"TRT-{number}-EntropyCalibration2\n")
    assert read_cache(text).version == ".".join(version.split(".")[:3])


@given(
    st.dictionaries(
        st.from_regex(r"[/A-Za-z_][A-Za-z0-9_/.:() *\[\]-]{0,30}[A-Za-z0-9]", fullmatch=True),
        st.floats(1e-30, 1e30),
        max_size=8,
    )
)
def test_every_range_comes_back_as_its_float32_scale(amax: dict[str, float]) -> None:
    read = read_cache(cache_text(amax)).amax
    assert list(read) == list(amax)
    for name, value in amax.items():
        assert read[name] / 127 == struct.unpack(">f", struct.pack(">f", value / 127))[0]
        assert math.isclose(read[name], value, rel_tol=1e-6)


def test_a_cache_that_tensorrt_wrote_is_read() -> None:
    lines = ("TRT-7202-EntropyCalibration2", "data: 3c008912", "(Unnamed L* 4) [X]_out: 3d65992f")
    text = "\r\n".join(lines)
    cache = read_cache(text)
    assert (cache.version, cache.kind) == ("7.2.2", "EntropyCalibration2")
    assert cache.amax["data"] == pytest.approx(0.9963, abs=1e-3)
    assert set(cache.amax) == {"data", "(Unnamed L* 4) [X]_out"}


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_cache(tmp_path / "vision.cache", {"x": 2.0})
    assert [p.name for p in tmp_path.iterdir()] == ["vision.cache"]
    assert read_cache((tmp_path / "vision.cache").read_text()).amax == pytest.approx({"x": 2.0})


@pytest.mark.parametrize("amax", [0.0, -1.0, math.nan, math.inf])
def test_a_range_without_a_scale_is_refused(amax: float) -> None:
    with pytest.raises(InputError, match=r"range of fc1_in is .*, expected a finite number above"):
        cache_text({"fc1_in": amax})


@pytest.mark.parametrize(("amax", "message"), [(1e-60, "too small"), (1e60, "beyond float32")])
def test_a_range_beyond_float32_is_refused(amax: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cache_text({"x": amax})


@pytest.mark.parametrize("name", ["", "a\nb", " a"])
def test_a_name_that_would_break_a_line_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot be written to a calibration cache"):
        cache_text({name: 1.0})


@pytest.mark.parametrize("version", ["11.0.0", "6.0.1"])
def test_a_version_without_caches_is_refused(version: str) -> None:
    with pytest.raises(InputError, match="reads no calibration cache, versions 7 to 10 do"):
        cache_text({"x": 1.0}, version)


@pytest.mark.parametrize("version", ["", "ten", "10", "10.x"])
def test_a_version_that_is_none_is_refused(version: str) -> None:
    with pytest.raises(InputError, match=r"TensorRT version .*, expected one such as 10\.3\.0"):
        cache_text({"x": 1.0}, version)


@pytest.mark.parametrize("text", ["", "hello", "TRT-EntropyCalibration2"])
def test_a_text_that_is_no_cache_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"my\.cache starts with .*, expected a line such as TRT-"):
        read_cache(text, "my.cache")


@pytest.mark.parametrize("line", ["x 3c010204", "x: 3c01", "x: zzzzzzzz", ": 3c010204"])
def test_a_broken_line_is_named(line: str) -> None:
    with pytest.raises(InputError, match=r"my\.cache, line 2: .*, expected a tensor"):
        read_cache(f"TRT-100300-EntropyCalibration2\n{line}\n", "my.cache")

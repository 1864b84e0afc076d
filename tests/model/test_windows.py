from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from reference_data import read_json

from hicom_edge.model.windows import group_counts, group_index, window_indices


def test_windows_are_the_authors_where_theirs_exist() -> None:
    for key, windows in read_json("components/windows_1d.json").items():
        if isinstance(windows, list):
            size, kernel = map(int, key.split(","))
            assert window_indices(size, kernel) == windows, key


@given(st.integers(1, 300), st.integers(1, 40))
def test_windows_cover_the_axis_in_order_with_one_width(size: int, kernel: int) -> None:
    windows = window_indices(size, kernel)
    assert len(windows) == -(-size // kernel)
    assert {len(w) for w in windows} == {min(size, kernel)}
    assert {i for w in windows for i in w} == set(range(size))
    starts = [w[0] for w in windows]
    assert starts == sorted(set(starts))


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_groups_cover_the_grid(grid: tuple[int, int, int], kernel: tuple[int, int, int]) -> None:
    index = group_index(grid, kernel)
    t, h, w = group_counts(grid, kernel)
    assert len(index) == t * h * w
    assert index.unique().tolist() == list(range(grid[0] * grid[1] * grid[2]))

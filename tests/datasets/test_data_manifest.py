from __future__ import annotations

from pathlib import Path

from hicom_edge.datasets.data_manifest import data_manifest
from hicom_edge.datasets.sample import Sample


def test_the_manifest_names_what_was_used_and_moved_data_is_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    for name in ("b.mp4", "more/c.webm"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())

    def manifest() -> dict[str, object]:
        return data_manifest(
            [
                Sample(folder / "b.mp4", "What?", "a dog"),
                Sample(folder / "more/c.webm", "Who?"),
            ]
        )

    before = manifest()
    assert [video["name"] for video in before["videos"]] == ["b.mp4", "more/c.webm"]
    assert before["questions"][0] == {
        "video": "b.mp4",
        "question": "What?",
        "answer": "a dog",
        "kind": None,
    }
    folder = folder.rename(folder.with_name("moved"))
    assert manifest() == before
    (folder / "b.mp4").write_bytes(b"altered")
    assert manifest()["sha256"] != before["sha256"]


def test_a_directory_of_frames_is_hashed_by_its_files(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "0.png").write_bytes(b"0")
    first = data_manifest([Sample(frames, "What?")])["sha256"]
    (frames / "1.png").write_bytes(b"1")
    assert data_manifest([Sample(frames, "What?")])["sha256"] != first

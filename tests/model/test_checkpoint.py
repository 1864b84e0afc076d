"""What is read from a checkpoint, and what is refused, in one line that lists it."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from reference_data import reference_dir, write_variant
from safetensors.torch import load_file, save_file

from hicom_edge.errors import CheckpointError
from hicom_edge.model import (
    Checkpoint,
    HicomConfig,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from hicom_edge.model.loading import checkpoint_state

QUERY = "model.mm_projector.global_compressor.query"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_variant("release", tmp_path)


def change_config(checkpoint: Path, **changes: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(checkpoint: Path, change) -> None:
    path = checkpoint / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def test_the_injection_in_use_is_reported_with_the_ignored_suffix(checkpoint: Path) -> None:
    assert Checkpoint.open(checkpoint).notes == (
        "injection in use, read from the weights: local direct, global direct; the suffix _coarse "
        "of mm_projector_type has no effect; all 32 global tokens are equal",
    )


def test_missing_extra_and_misshapen_tensors_are_listed(checkpoint: Path) -> None:
    def damage(state: dict) -> None:
        state[QUERY] = state[QUERY][:8].contiguous()
        del state["model.norm.weight"]
        state["model.mm_projector.local_compressor.k_alpha"] = torch.zeros(1)
        state["model.audio_tower.weight"] = torch.zeros(1)

    change_tensors(checkpoint, damage)
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(checkpoint)
    message = str(error.value)
    assert "\n" not in message
    assert "missing (1): llm: model.norm.weight" in message
    assert "model.audio_tower.weight" in message
    assert "compressor: local_compressor.k_alpha" in message
    assert "global_compressor.query is (8, 256), expected (32, 256)" in message


def test_shards_are_read_through_their_index(checkpoint: Path) -> None:
    expected = checkpoint_state(load_checkpoint(checkpoint))
    state = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"model-1.safetensors": names[:70], "model-2.safetensors": names[70:]}
    for file, part in shards.items():
        save_file({n: state[n] for n in part}, checkpoint / file)
    weight_map = {n: file for file, part in shards.items() for n in part}
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    found = checkpoint_state(load_checkpoint(checkpoint))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], expected[n]) for n in found)

    (checkpoint / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks the shards \['model-2.safetensors'\]"):
        Checkpoint.open(checkpoint)


def test_a_truncated_shard_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        Checkpoint.open(checkpoint)


def test_the_checkpoints_own_tower_wins_over_the_tower_directory(checkpoint: Path) -> None:
    own = load_file(checkpoint / "model.safetensors")
    name = "model.vision_tower.vision_tower.vision_model.post_layernorm.weight"
    model = load_checkpoint(checkpoint)
    found = model.vision_tower.vision_model.post_layernorm.weight
    assert torch.equal(found, own[name].float())


def test_its_own_guide_encoder_wins_where_the_vision_tower_comes_from_elsewhere(
    checkpoint: Path,
) -> None:
    own = checkpoint_state(load_checkpoint(checkpoint))
    write_tower(checkpoint, shift=1.0)
    change_config(checkpoint, mm_vision_tower="tower")
    change_tensors(checkpoint, remove_starting_with("model.vision_tower.vision_tower."))
    model = load_checkpoint(checkpoint)
    found = checkpoint_state(model)
    differing = {name for name in own if not torch.equal(found[name], own[name])}
    assert {name.split(".")[2] for name in differing} == {"vision_tower"}
    assert "the vision tower's weights come from tower" in model.notes


def test_a_checkpoint_with_a_vision_tower_must_have_its_guide_encoder(checkpoint: Path) -> None:
    change_tensors(checkpoint, remove_starting_with("model.vision_tower.guide_encoder."))
    with pytest.raises(CheckpointError, match=r"missing \(38\): guide: embeddings\.token"):
        Checkpoint.open(checkpoint)


def remove_starting_with(prefix: str):
    def remove(state: dict) -> None:
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]

    return remove


def test_buffers_of_older_libraries_are_passed_over_and_integer_weights_are_not(
    checkpoint: Path,
) -> None:
    embeddings = "model.vision_tower.vision_tower.vision_model.embeddings.position_ids"
    change_tensors(checkpoint, lambda state: state.update({embeddings: torch.arange(81)[None]}))
    assert Checkpoint.open(checkpoint).part("vision")
    norm = "model.norm.weight"
    change_tensors(checkpoint, lambda state: state.update({norm: state[norm].to(torch.int32)}))
    with pytest.raises(
        CheckpointError, match=r"not floating-point \(1\): llm: model\.norm\.weight is torch\.int32"
    ):
        Checkpoint.open(checkpoint)


def write_tower(checkpoint: Path, shift: float = 0.0) -> Path:
    """A directory "tower" beside the checkpoint, with the checkpoint's own weights plus `shift`."""
    tower = checkpoint.parent / "tower"
    source = next((checkpoint.parent / "playground" / "models").iterdir())
    shutil.copytree(source, tower, ignore=shutil.ignore_patterns("*.safetensors"))
    own = "model.vision_tower."
    towers = {
        k.removeprefix(own + "vision_tower.").removeprefix(own + "guide_encoder."): v + shift
        for k, v in load_file(checkpoint / "model.safetensors").items()
        if k.startswith(own)
    }
    save_file(towers | {"logit_scale": torch.zeros(1)}, tower / "model.safetensors")
    return tower


def split_into_stage_output(checkpoint: Path) -> Path:
    """A stage-1 output: mm_projector.bin, a base LLM and a tower with weights of its own."""
    state = load_file(checkpoint / "model.safetensors")
    base = checkpoint.parent / "base-llm"
    base.mkdir()
    prefixes = ("model.layers", "model.embed", "model.norm", "lm_head")
    save_file(
        {k: v for k, v in state.items() if k.startswith(prefixes)}, base / "model.safetensors"
    )
    write_tower(checkpoint)
    projector = {k: v for k, v in state.items() if "mm_projector" in k}
    torch.save(projector, checkpoint / "mm_projector.bin")
    (checkpoint / "model.safetensors").unlink()
    change_config(checkpoint, _name_or_path="base-llm", mm_vision_tower="tower")
    return checkpoint


def test_a_stage_output_is_read_on_top_of_its_base_and_tower(checkpoint: Path) -> None:
    expected = checkpoint_state(load_checkpoint(checkpoint))
    model = load_checkpoint(split_into_stage_output(checkpoint))
    found = checkpoint_state(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], expected[n]) for n in found)
    assert "the tower's weights come from tower" in model.notes


@pytest.mark.parametrize("prefix", ["", "module.model.", "base_model.model.model."])
def test_what_wrapped_the_model_in_training_does_not_matter(checkpoint: Path, prefix: str) -> None:
    path = split_into_stage_output(checkpoint) / "mm_projector.bin"
    expected = Checkpoint.open(checkpoint).part("compressor").keys()
    state = torch.load(path, weights_only=True)
    torch.save({prefix + n.removeprefix("model."): t for n, t in state.items()}, path)
    assert Checkpoint.open(checkpoint).part("compressor").keys() == expected


def test_a_tower_without_weights_that_can_be_read_safely_is_named(checkpoint: Path) -> None:
    split_into_stage_output(checkpoint)
    weights = checkpoint.parent / "tower" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(CheckpointError, match=r"tower has no \*\.safetensors; expected the tow"):
        Checkpoint.open(checkpoint)


def test_a_base_and_a_tower_that_are_passed_win_over_those_that_are_named(
    checkpoint: Path,
) -> None:
    split_into_stage_output(checkpoint)
    change_config(checkpoint, _name_or_path="a/b/base-7b", mm_vision_tower="a/b/tower")
    beside = checkpoint.parent
    with pytest.raises(CheckpointError, match=r"with --vision-tower \(vision_tower=\)$"):
        Checkpoint.open(checkpoint)
    with pytest.raises(CheckpointError, match=r"with --base-llm \(base_llm=\)$"):
        Checkpoint.open(checkpoint, vision_tower=beside / "tower")
    opened = Checkpoint.open(checkpoint, vision_tower="tower", base_llm=beside / "base-llm")
    assert (opened.tower_directory, opened.llm_directory) == (beside / "tower", beside / "base-llm")


def test_the_hubs_tower_weights_are_fetched_only_when_the_checkpoint_has_none(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:  # the network's part
        fetched.append((name, "*.safetensors" in allow_patterns))
        return str(checkpoint.parent / "tower")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    write_tower(checkpoint)
    change_config(checkpoint, mm_vision_tower="google/siglip")
    Checkpoint.open(checkpoint)
    assert fetched == [("google/siglip", False)]
    change_tensors(checkpoint, remove_starting_with("model.vision_tower."))
    Checkpoint.open(checkpoint)
    assert fetched[1:] == [("google/siglip", False), ("google/siglip", True)]


def test_a_stage_output_without_a_tokenizer_takes_its_bases(checkpoint: Path) -> None:
    split_into_stage_output(checkpoint)
    base = checkpoint.parent / "base-llm"
    assert Checkpoint.open(checkpoint).text_directory == checkpoint
    for name in ("tokenizer.json", "vocab.json", "generation_config.json"):
        (checkpoint / name).rename(base / name)
    opened = Checkpoint.open(checkpoint)
    assert opened.text_directory == base
    assert opened.generation_config["repetition_penalty"] == 1.05


def test_a_stage_output_without_a_base_says_where_it_looked(checkpoint: Path) -> None:
    split_into_stage_output(checkpoint)
    change_config(checkpoint, _name_or_path="../elsewhere/base")
    with pytest.raises(CheckpointError, match=r"the base LLM '../elsewhere/base' was not found at"):
        Checkpoint.open(checkpoint)


class _RunsCode:
    def __reduce__(self):
        return (print, ("code in a checkpoint was run",))


def test_a_pickle_with_code_is_refused_and_not_run(checkpoint: Path, capsys) -> None:
    split_into_stage_output(checkpoint)
    (checkpoint / "mm_projector.bin").write_bytes(pickle.dumps({"x": _RunsCode()}))
    with pytest.raises(CheckpointError, match="cannot be read as a file of tensors alone"):
        Checkpoint.open(checkpoint)
    assert "code in a checkpoint" not in capsys.readouterr().out


def test_pickled_weights_are_never_read(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="which is never unpickled; expected"):
        Checkpoint.open(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, r"model_type 'mamba', expected one of \['hicom_llama'"),
        ({"mm_vision_select_feature": "cls"}, "mm_vision_select_feature is 'cls', expected"),
        ({"mm_projector_type": "conv"}, "mm_projector_type is 'conv', expected a projector"),
        ({"mm_projector_type": 43}, "config.json has mm_projector_type 43, expected text"),
        ({"use_clip_scale": True}, "config.json has use_clip_scale True, expected text"),
        ({"num_frames": "many"}, "config.json has num_frames 'many', expected a number"),
        ({"hidden_size": "64"}, "config.json does not describe a language model .*hidden_size"),
        (
            {"mm_projector_type": "local43_guidefine_global32"},
            r"asks for injection \['fine'\], but use_guide 'direct' provides \['coarse', ",
        ),
        ({"use_guide": "off", "mm_projector_type": "local43_guidedirect"}, "provides no guide"),
        (
            {"mm_vision_tower": "/nowhere/at all"},
            "the vision tower '/nowhere/at all' was not found",
        ),
    ],
)
def test_a_configuration_that_cannot_be_computed_is_refused(
    checkpoint: Path, changes: dict, message: str
) -> None:
    change_config(checkpoint, **changes)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(checkpoint)


@pytest.mark.parametrize(
    ("projector", "use_guide", "possible"),
    [
        ("local43_global4", "direct", True),
        ("local43_guidedirect_global4", "coarse", True),
        ("global4", "fine", True),
        ("local43_global4", "off", True),
        ("local43_global4", "coarse", False),
        ("local43_global4", "fine", False),
        ("local43_guideoff_global4", "direct", False),
    ],
)
def test_local_queries_of_features_need_embeddings_of_their_width(
    projector: str, use_guide: str, possible: bool
) -> None:
    """CLIP's joint space has a width of its own: direct injection alone is at home in it."""
    vision = {"hidden_size": 64, "num_attention_heads": 4, "image_size": 42, "patch_size": 14}
    tower = {"model_type": "clip", "projection_dim": 48, "vision_config": vision}
    config = {"model_type": "hicom_qwen2", "hidden_size": 32, "mm_newline_position": "no_token"}
    config |= {"mm_projector_type": projector, "use_guide": use_guide}
    if possible:
        HicomConfig(config, tower).check()
        return
    with pytest.raises(CheckpointError, match="features of 64 channels with embeddings of 48; th"):
        HicomConfig(config, tower).check()


def test_a_directory_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config.json does not exist; expected a checkpoint"):
        Checkpoint.open(tmp_path)


def test_a_missing_directory_names_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the checkpoint .* was not found at"):
        Checkpoint.open(tmp_path / "no such place")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["hicom_qwen2", "hicom_llama"])
def test_a_saved_model_is_loaded_bit_for_bit(tmp_path: Path, family: str, tied: bool) -> None:
    source = reference_dir() / "ckpt_small"
    config = json.loads((source / "release" / "config.json").read_text())
    tower = next((source / "playground" / "models").iterdir())
    config |= {"model_type": family, "tie_word_embeddings": tied, "mm_vision_tower": "tower"}
    config |= {"mm_projector_type": "local43_guidedirect_global4_guidecoarse"}
    model = build_model(config, json.loads((tower / "config.json").read_text()))
    expected = checkpoint_state(model)
    saved = save_checkpoint(model, tmp_path / "saved")
    found = checkpoint_state(load_checkpoint(saved))
    assert found.keys() == expected.keys()
    assert ("lm_head.weight" in found) is not tied
    assert all(torch.equal(found[n], expected[n]) for n in found)
    modes = {(saved / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1

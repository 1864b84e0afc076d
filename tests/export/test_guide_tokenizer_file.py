"""The exported guide tokenizer gives the ids of the tower's original one, for any text."""

from __future__ import annotations

import json
import random
import shutil
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from reference_data import reference_dir

from hicom_edge.errors import ExportError
from hicom_edge.export.guide_tokenizer_file import write_guide_tokenizer
from hicom_edge.runtime.guide.tokenizer import GuideTokenizer

spm = pytest.importorskip("sentencepiece")
schema = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")

HERE = Path(__file__).parents[1] / "reference"
REFERENCE = reference_dir()
TOWER = REFERENCE / "ckpt_small/playground/models/siglip-so400m-patch14-384"
SIGLIP = {"model_type": "siglip"}
SENTENCE = (
    "the a dog cat man woman is are running jumping what where color red blue green video shows "
    "person holding ball aaaa aaa hahaha 100000 2000 café naïve 你好 世界 émile straße ﬁne"
)
WORDS = SENTENCE.split()
SPECIAL_TEXTS = [
    *["</s>", "<unk>", "</S>", "<UNK>", "＜/s＞", "＜unk＞", "<pad>", "＜pad＞", "▁", "ΟΔΟΣ"],
    *["İSTANBUL", "STRASSE ß", "Ω ﬁ Ⅷ ½ ㎏ ｶﾞ", "👩🏽‍🚀", "e\u0301", "\u0301", "\u3000", "\u00a0"],
    *["\x00", "\x1f", "\x85", "\u2028", "\u200b", "\ufeff", "hahahaha", "1000000", "aaaaaaa"],
    *[
        "你好世界",
        "مرحبا بكم",
        "नमस्ते",
        "한국어",
        "\U0010fffd",
        "Ǆ ǅ ſ K",
        "?!...",
        "The dog ",
        "\n",
    ],
]
POOLS = [
    string.ascii_lowercase + " ",
    string.printable,
    "a",
    "ab ",
    WORDS,
    [chr(c) for c in range(0x20, 0x3000)],
    [chr(c) for c in [*range(0x3000, 0xD800), *range(0xE000, 0x11000)]],
    [chr(c) for c in [*range(0x1F000, 0x20000), *range(0x20000, 0x110000, 37)]],
]


def opened(tower: Path, directory: Path, config: dict[str, object] = SIGLIP) -> GuideTokenizer:
    spec = write_guide_tokenizer(tower, config, directory)
    bundle = SimpleNamespace(
        path=directory, manifest=SimpleNamespace(guide=spec), file=lambda name: directory / name
    )
    return GuideTokenizer(bundle)


def padded(ids: list[int], length: int = 64) -> list[int]:
    return (ids + [1] * length)[:length]


def many_texts(seed: int, count: int) -> Iterator[str]:
    rng = random.Random(seed)
    yield from ["", " ", "the dog " * 500, "x" * 3000, string.punctuation]
    for _ in range(count):
        pools = [rng.choice(POOLS) for _ in range(2)]
        yield "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randrange(60)))
        yield "".join(rng.choice(SPECIAL_TEXTS) for _ in range(rng.randrange(1, 8)))


def trained_tower(directory: Path, rule: str, byte_fallback: bool) -> Path:
    rng = random.Random(0)
    endings = ["", "s", "ing", "er"]
    sentences = (
        " ".join(rng.choice(WORDS) + rng.choice(endings) for _ in range(rng.randrange(3, 12)))
        for _ in range(2000)
    )
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "spiece.model").open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=file,
            model_type="unigram",
            vocab_size=400,
            normalization_rule_name=rule,
            byte_fallback=byte_fallback,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
    shutil.copy(TOWER / "tokenizer_config.json", directory)
    return directory


def oracle(spiece: Path) -> Callable[[str], list[int]]:
    """SigLIP's rules in terms of the sentencepiece package, for towers like the reference's."""
    model = schema.ModelProto.FromString(spiece.read_bytes())
    model.normalizer_spec.add_dummy_prefix = False
    processor = spm.SentencePieceProcessor(model_proto=model.SerializeToString())
    skipped = len(processor.encode("<unk>"))

    def cut(text: str) -> list[str]:
        kept = "".join(c for c in text if c not in string.punctuation)
        pieces: list[str] = processor.encode("<unk>" + " ".join(kept.split()), out_type=str)
        return pieces[skipped:] if len(pieces) >= skipped else pieces

    def tokens(text: str) -> list[str]:
        found: list[str] = []
        lowered = "".join(c.lower() for c in text)
        while lowered:
            places = {t: lowered.find(t) for t in ("</s>", "<unk>") if t in lowered}
            if not places:
                break
            special = min(places, key=places.__getitem__)
            before, lowered = lowered[: places[special]], lowered[places[special] + len(special) :]
            before = before.rstrip() if not found else before.strip()
            found += [*(cut(before) if before else []), special]
        rest = lowered if not found else lowered.lstrip()
        return found + (cut(rest) if rest else [])

    def ids(text: str) -> list[int]:
        found = tokens("▁" + text.replace("▁", " "))
        if len(found) > 1 and found[0] == "▁" and found[1] in ("</s>", "<unk>"):
            found = found[1:]
        indices = [processor.piece_to_id(token) for token in found][:63]
        return padded(indices if indices and indices[-1] == 1 else [*indices, 1])

    return ids


def test_reference_cases_have_the_reference_ids(tmp_path: Path) -> None:
    guide = opened(TOWER, tmp_path)
    cases = json.loads((REFERENCE / "preprocess/tokenize.json").read_text())["guide"]
    assert len(cases) >= 15
    for case in cases:
        ids = guide.encode(case["text"])
        assert ids.dtype == np.int64
        assert ids.tolist() == case["input_ids"], case["text"]


def test_recorded_texts_have_the_ids_of_the_original_tokenizer(tmp_path: Path) -> None:
    guide = opened(TOWER, tmp_path)
    recorded = json.loads((HERE / "preprocess/siglip_ids.json").read_text())["release"]
    wrong = [text for text, ids in recorded if guide.encode(text).tolist() != padded(ids)]
    assert len(recorded) == 800
    assert wrong == []


@pytest.mark.parametrize("number", range(6))
def test_equally_probable_cuts_are_decided_as_by_the_original(tmp_path: Path, number: int) -> None:
    recorded = json.loads((HERE / "preprocess/siglip_ids.json").read_text())["ties"][number]
    model = schema.ModelProto.FromString((TOWER / "spiece.model").read_bytes())
    del model.pieces[3:]
    for piece, score in recorded["pieces"][3:]:
        model.pieces.add(piece=piece, score=score, type=1)
    model.normalizer_spec.precompiled_charsmap = b""
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower/spiece.model").write_bytes(model.SerializeToString())
    guide = opened(tmp_path / "tower", tmp_path)
    for text, ids in recorded["cases"]:
        assert guide.encode(text).tolist() == padded(ids), text


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf", "nfkc", "identity"])
def test_any_text_has_the_ids_of_sentencepiece(
    tmp_path: Path, rule: str, byte_fallback: bool
) -> None:
    tower = trained_tower(tmp_path / "tower", rule, byte_fallback)
    guide, expected = opened(tower, tmp_path), oracle(tower / "spiece.model")
    wrong = [t for t in many_texts(7, 700) if guide.encode(t).tolist() != expected(t)]
    assert wrong == []


def test_the_oracle_itself_agrees_with_the_original_tokenizer() -> None:
    expected = oracle(TOWER / "spiece.model")
    recorded = json.loads((HERE / "preprocess/siglip_ids.json").read_text())["release"]
    assert [text for text, ids in recorded if expected(text) != padded(ids)] == []


def test_the_file_is_also_a_tokenizer_json_that_agrees_on_plain_text(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    guide = opened(TOWER, tmp_path)
    plain = Tokenizer.from_file(str(tmp_path / "guide_tokenizer.json"))
    for text in ["What is the man doing?", "WHAT   is\nthis?!", "café 你好", "It's 5 o'clock"]:
        assert padded(plain.encode(text).ids) == guide.encode(text).tolist()


def test_truncation_keeps_the_end_token_last(tmp_path: Path) -> None:
    short = {"model_type": "siglip", "text_config": {"max_position_embeddings": 8}}
    ids = opened(TOWER, tmp_path, short).encode("the dog " * 20)
    assert ids.shape == (8,)
    assert ids.tolist() == [3, 77, 3, 77, 3, 77, 3, 1]


def test_equal_towers_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_guide_tokenizer(TOWER, SIGLIP, tmp_path / name)
    first, second = ((tmp_path / n / "guide_tokenizer.json").read_bytes() for n in "ab")
    assert first == second


@pytest.fixture
def clip_tower(tmp_path: Path) -> Path:
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789?!.,'"]
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(c + "</w>" for c in letters)]
    merges = ["t h", "th e</w>", "d o", "do g</w>", "a t</w>", "c at</w>"]
    pieces += ["".join(merge.split()) for merge in merges]
    tower = tmp_path / "clip"
    tower.mkdir()
    (tower / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
    (tower / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (tower / "tokenizer_config.json").write_text(json.dumps(config))
    return tower


def test_clip_has_the_ids_of_the_original_tokenizer(clip_tower: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    guide = opened(clip_tower, tmp_path, {"model_type": "clip"})
    original = transformers.CLIPTokenizerFast.from_pretrained(str(clip_tower))
    texts = ["The DOG, the cat?", "", "  the\tdog\n", "the dog " * 80, "<|endoftext|> cat", "a'll"]
    for text in texts:
        expected = original(text, padding="max_length", truncation=True, max_length=77).input_ids
        assert guide.encode(text).tolist() == expected, text
    assert guide.encode("the dog " * 80)[-1] == original.eos_token_id


def broken_tower(tmp_path: Path, change: Callable[[object], None]) -> Path:
    model = schema.ModelProto.FromString((TOWER / "spiece.model").read_bytes())
    change(model)
    tower = tmp_path / "tower"
    tower.mkdir()
    (tower / "spiece.model").write_bytes(model.SerializeToString())
    return tower


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pieces.add(piece="x", score=-1, type=4), "user-defined or unused pieces"),
        (lambda m: m.pieces.add(piece="x", score=0, type=1), "a score of 0 or more"),
        (lambda m: setattr(m.trainer_spec, "model_type", 2), "its model type is not unigram"),
        (
            lambda m: setattr(m.normalizer_spec, "remove_extra_whitespaces", False),
            "it keeps repeated spaces",
        ),
        (lambda m: setattr(m.pieces[1], "piece", "<eos>"), "eos_token '</s>' is not a piece"),
    ],
)
def test_a_model_of_another_kind_is_refused(
    tmp_path: Path, change: Callable[[object], None], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        write_guide_tokenizer(broken_tower(tmp_path, change), SIGLIP, tmp_path)
    assert not (tmp_path / "guide_tokenizer.json").exists()


def test_missing_or_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"spiece\.model does not exist; expected the SigLIP"):
        write_guide_tokenizer(tmp_path, SIGLIP, tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"not a model")
    with pytest.raises(ExportError, match="is not a SentencePiece model"):
        write_guide_tokenizer(tmp_path, SIGLIP, tmp_path)
    with pytest.raises(ExportError, match=r"model_type 'dino'; expected one of \['clip', 'sig"):
        write_guide_tokenizer(tmp_path, {"model_type": "dino"}, tmp_path)
    with pytest.raises(ExportError, match=r"has no text tokenizer; expected tokenizer\.json"):
        write_guide_tokenizer(tmp_path, {"model_type": "clip"}, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ExportError, match=r"the CLIP tokenizer of .* cannot be read"):
        write_guide_tokenizer(tmp_path, {"model_type": "clip"}, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ExportError, match=r"tokenizer_config\.json is not valid JSON"):
        write_guide_tokenizer(tmp_path, SIGLIP, tmp_path)


def test_added_tokens_that_the_model_lacks_are_refused(tmp_path: Path) -> None:
    tower = broken_tower(tmp_path, lambda m: None)
    added = {"500": {"content": "<extra>", "lstrip": False, "rstrip": False}}
    (tower / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(ExportError, match=r"adds tokens that spiece\.model does not have.*<extra>"):
        write_guide_tokenizer(tower, SIGLIP, tmp_path)

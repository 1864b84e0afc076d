"""Whether every token id that can be asked for has a row in the embedding table."""

from __future__ import annotations

from pathlib import Path

from hicom_edge.errors import ExportError


def check_vocabulary(tokenizer: Path, stop_token_ids: tuple[int, ...], vocab_size: int) -> None:
    """Refuse a tokenizer or stop tokens with ids beyond the embedding table.

    tokenizer: a tokenizer.json. vocab_size: rows of the table.

    Raises:
        ExportError: names the ids and the rows.
    """
    from tokenizers import Tokenizer

    largest = max(Tokenizer.from_file(str(tokenizer)).get_vocab().values(), default=0)
    if largest >= vocab_size:
        raise ExportError(
            f"the tokenizer has ids up to {largest}, but the embedding table has {vocab_size} "
            "rows; resize the model's embeddings to the tokenizer, or copy the tokenizer that it "
            "was trained with"
        )
    beyond = [token for token in stop_token_ids if not 0 <= token < vocab_size]
    if beyond:
        raise ExportError(
            f"the stop tokens {beyond} (eos_token_id) are beyond the embedding table of "
            f"{vocab_size} rows, so no answer would end; correct eos_token_id in "
            "generation_config.json"
        )

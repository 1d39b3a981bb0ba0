"""Text becomes token ids: UTF-8 bytes, or a fast tokenizer of transformers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autotuner.errors import InvalidConfigError

Ids = NDArray[np.int64]

BYTES = "bytes"
FIRST_BYTE_ID = 3  # below it stand padding, end and unknown, as in ByT5


class Tokenizer(Protocol):
    """Text becomes token ids.

    Attributes:
        name: For messages.
        vocabulary: One more than the largest id.
        padding: The id that fills rows up; it is masked, so any will do.
    """

    name: str
    vocabulary: int
    padding: int

    def encode(self, texts: Sequence[str], limit_tokens: int) -> list[Ids]:
        """The ids of each text, cut to at most `limit_tokens`."""
        ...


class ByteTokenizer:
    """Every UTF-8 byte is a token; needs no file and knows every language."""

    name = BYTES
    vocabulary = FIRST_BYTE_ID + 256
    padding = 0

    def encode(self, texts: Sequence[str], limit_tokens: int) -> list[Ids]:
        """The ids of each text: byte + 3."""
        cut = (text[:limit_tokens].encode(errors="replace")[:limit_tokens] for text in texts)
        return [np.frombuffer(raw, dtype=np.uint8).astype(np.int64) + FIRST_BYTE_ID for raw in cut]


class FastTokenizer:
    """A fast tokenizer of transformers; a list of texts is one call."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.name = name
        self.vocabulary = len(tokenizer)
        self.padding = next(
            (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0
        )  # many decoders have no padding of their own
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str], limit_tokens: int) -> list[Ids]:
        """The ids of each text, special tokens included."""
        encoded = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=limit_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]


def load_tokenizer(
    name: str | None, model: str | None = None, *, revision: str | None = None, trust_remote_code: bool = False
) -> Tokenizer:
    """The tokenizer `name`, or the model's own, or bytes where the model is inline and has none.

    Args:
        name: `bytes`, a tokenizer.json, a folder or a hub id; None is the model's own.
        model: A folder or a hub id; None for a model that is written inline.
        revision: Of the hub model; only for its own tokenizer.
        trust_remote_code: Run code that comes with the tokenizer.

    Raises:
        InvalidConfigError: It cannot be loaded.
    """
    source = name if name is not None else model
    if source is None or source == BYTES:
        return ByteTokenizer()
    import transformers

    path = Path(source).expanduser()
    alone = path if path.is_file() else path / "tokenizer.json"
    try:
        if alone.is_file():
            json.loads(alone.read_bytes())["model"]  # or the library fails with a bare Exception
        if alone.is_file() and not any((alone.parent / f).is_file() for f in ("tokenizer_config.json", "config.json")):
            return FastTokenizer(source, transformers.PreTrainedTokenizerFast(tokenizer_file=str(alone)))
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(path) if path.exists() else source,
            revision=revision if name is None else None,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split()).split(". ")[0][:200]
        hint = "name one with data.tokenizer; `bytes` needs no file"
        raise InvalidConfigError(f"the tokenizer of {source} cannot be loaded: {reason}", hint) from error
    return FastTokenizer(source, tokenizer)

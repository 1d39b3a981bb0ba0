"""What a training learns from, as a map data set: decoding and tokenising happen where a sample is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from autotuner.errors import InvalidConfigError
from autotuner.workloads.training.data import Data
from autotuner.workloads.training.images import Images
from autotuner.workloads.training.texts import JsonLines, ParquetRows, SyntheticTexts, Texts, Windows
from autotuner.workloads.training.tokenizers import Ids, Tokenizer, load_tokenizer

Row = dict[str, Any]  # tensors by name, of one sample
Batch = dict[str, Any]  # tensors by name, [samples, ...]

IGNORED = -100  # the label of what is no target, as everywhere in torch
MEASURED_BYTES = 1 << 16  # of text, to learn how many bytes a token has
SPARE = 1.25  # so much more text than a row needs is tokenised at once, as the number of tokens varies
MOST_WINDOWS = 64.0


class Samples(Protocol):
    """A map data set of torch, with the batches that it makes.

    Attributes:
        classes: How many classes the labels have; None for language models.
    """

    classes: int | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row:
        """One sample, decoded or tokenised now.

        Raises:
            InvalidConfigError: It is broken; the message names the file.
        """
        ...

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        """The same samples, bit for bit, decoded or tokenised all at once."""
        ...

    def collate(self, rows: Sequence[Row]) -> Batch:
        """One batch: `input_ids`, `attention_mask` and `labels`, or `pixel_values` and `labels`."""
        ...

    def worst_batch(self, size: int) -> Batch:
        """The largest batch of `size` samples that the data and the options can give."""
        ...


class TokenSamples:
    """Texts as token ids; the labels are the ids themselves, or the class of the text."""

    def __init__(self, texts: Texts, tokenizer: Tokenizer, data: Data) -> None:
        self._texts, self._tokenizer = texts, tokenizer
        self._limit_tokens, self._full = data.sequence_tokens, data.lengths == "full"
        self.classes = texts.classes

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Row:
        """The token ids of one text."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        """The token ids of several texts, by one call of the tokenizer."""
        import torch

        rows = [{"input_ids": torch.from_numpy(ids)} for ids in self._ids(indices)]
        if self._texts.labels is not None:
            for row, index in zip(rows, indices, strict=True):
                row["labels"] = torch.tensor(self._texts.labels[index])
        return rows

    def _ids(self, indices: Sequence[int]) -> list[Ids]:
        packed = self._full and isinstance(self._texts, Windows)
        texts = [self._packed_text(i, SPARE) if packed else self._texts.text(i) for i in indices]
        encoded = self._tokenizer.encode(texts, self._limit_tokens)
        for place, index in enumerate(indices):
            windows = SPARE
            while packed and len(encoded[place]) < self._limit_tokens and windows < MOST_WINDOWS:
                windows *= 2  # rare: a window of unusually long tokens
                encoded[place] = self._tokenizer.encode([self._packed_text(index, windows)], self._limit_tokens)[0]
        nothing = np.full(1, self._tokenizer.padding, dtype=np.int64)  # no model takes a row without tokens
        return [ids if len(ids) else nothing for ids in encoded]

    def _packed_text(self, index: int, windows: float) -> str:
        assert isinstance(self._texts, Windows)
        return self._texts.text(index, windows)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows padded to `sequence_tokens`, or to the longest of them."""
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        shape = len(rows), self._limit_tokens if self._full else longest
        ids = torch.full(shape, self._tokenizer.padding, dtype=torch.int64)
        mask = torch.zeros(shape, dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row["input_ids"])] = row["input_ids"]
            mask[place, : len(row["input_ids"])] = 1
        if self.classes is None:
            labels = ids.masked_fill(mask == 0, IGNORED)
        else:
            labels = torch.stack([row["labels"] for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def worst_batch(self, size: int) -> Batch:
        """Rows of the full `sequence_tokens`, without padding."""
        import torch

        row = dict(self[0])
        row["input_ids"] = torch.from_numpy(np.resize(row["input_ids"].numpy(), self._limit_tokens))
        return self.collate([row] * size)


def open_samples(
    data: Data,
    *,
    vocabulary: int | None = None,
    model: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Samples:
    """The samples of a data set, for a model.

    Args:
        data: What to read, and how.
        vocabulary: How many token ids the model knows; None where that does not matter, as for images.
        model: Where the model's own tokenizer is, a folder or a hub id; None for a model that is written inline.
        revision: Of the hub model.
        trust_remote_code: Run code that comes with the tokenizer.

    Raises:
        UsageError: The data cannot be found.
        InvalidConfigError: It is broken, or the tokenizer does not fit the model.
    """
    kind, files = data.locate()
    if kind == "images":
        return Images(str(data.path), files, data)
    tokenizer = load_tokenizer(data.tokenizer, model, revision=revision, trust_remote_code=trust_remote_code)
    if vocabulary is not None and tokenizer.vocabulary > vocabulary:
        sizes = f"{tokenizer.name} knows {tokenizer.vocabulary} tokens, the model only {vocabulary}"
        least = f"raise the model's vocab_size to {tokenizer.vocabulary}, or name a smaller data.tokenizer"
        raise InvalidConfigError(f"data.tokenizer: {sizes}", least)
    match kind:
        case "text":
            texts: Texts = _windows(files, tokenizer, data)
        case "jsonl":
            texts = JsonLines(files, data)
        case "parquet":
            texts = ParquetRows(files, data)
        case _:
            texts = SyntheticTexts(data)
    return TokenSamples(texts, tokenizer, data)


def _windows(files: Sequence[Path], tokenizer: Tokenizer, data: Data) -> Windows:
    """The text in windows of about `sequence_tokens`, by the bytes that a token has at its beginning."""
    head_file = next((file for file in files if file.stat().st_size), files[0])
    with head_file.open("rb") as file:
        whole = file.read(MEASURED_BYTES).decode(errors="ignore")
    tokens = len(tokenizer.encode([whole], len(whole.encode()))[0])
    return Windows(files, max(1, round(data.sequence_tokens * len(whole.encode()) / max(tokens, 1))))

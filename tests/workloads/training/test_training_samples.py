"""Texts become rows of token ids: real files, real tokenizers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.errors import InvalidConfigError
from autotuner.workloads.training.data import Data
from autotuner.workloads.training.samples import IGNORED, open_samples
from autotuner.workloads.training.texts import Windows, numbered
from autotuner.workloads.training.tokenizers import FIRST_BYTE_ID, ByteTokenizer, load_tokenizer

PROSE = (Path(__file__).parents[3] / "search_spaces" / "data" / "autotune_docs.txt").read_text()
WORDS = ["one", "two and a half", "trois é 🎉", "four " * 30, ""]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory) -> Path:
    """A byte-pair encoding of 400 tokens, trained here."""
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([PROSE[:20_000]], trainer)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    made.save(str(path))
    return path


def jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return str(path)


def parquet(path: Path, columns: dict) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    writer.write_table(pyarrow.table(columns), path, row_group_size=2)
    return str(path)


def text_of(ids: torch.Tensor) -> str:
    return bytes((ids - FIRST_BYTE_ID).tolist()).decode()


def same(rows: list, others: list) -> bool:
    return all(
        row.keys() == other.keys() and all(torch.equal(row[name], other[name]) for name in row)
        for row, other in zip(rows, others, strict=True)
    )


@given(st.lists(st.text(), min_size=1, max_size=4), st.integers(1, 40))
def test_bytes_are_utf8_cut_at_the_limit(texts, limit_tokens) -> None:
    for text, ids in zip(texts, ByteTokenizer().encode(texts, limit_tokens), strict=True):
        assert bytes((ids - FIRST_BYTE_ID).tolist()) == text.encode(errors="replace")[:limit_tokens]


def test_a_tokenizer_file_of_ones_own_is_loaded(bpe: Path) -> None:
    for name in (str(bpe), str(bpe.parent)):
        tokenizer = load_tokenizer(name)
        assert tokenizer.vocabulary == 400
        (ids,) = tokenizer.encode([PROSE[:1000]], 1000)
        assert 200 < len(ids) < 800, "pairs were merged"
        assert [len(row) for row in tokenizer.encode([PROSE[:1000], "a"], 7)] == [7, 1]


def test_the_models_own_tokenizer_is_taken_unless_another_is_named(bpe: Path) -> None:
    assert load_tokenizer(None, str(bpe.parent)).vocabulary == 400
    assert load_tokenizer("bytes", str(bpe.parent)).vocabulary == 259
    assert load_tokenizer(None, None).vocabulary == 259


def test_a_tokenizer_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidConfigError, match="cannot be loaded") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_broken_tokenizer_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(InvalidConfigError, match=r"tokenizer\.json cannot be loaded"):
        load_tokenizer(str(tmp_path / "tokenizer.json"))


def test_a_vocabulary_larger_than_the_models_is_an_error(bpe: Path) -> None:
    data = Data(kind="synthetic", tokenizer=str(bpe))
    with pytest.raises(InvalidConfigError, match="knows 400 tokens, the model only 399"):
        open_samples(data, vocabulary=399)
    open_samples(data, vocabulary=400)


@settings(max_examples=60)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4), st.integers(4, 20))
def test_windows_together_are_the_text(tmp_path_factory, texts, window_bytes) -> None:
    whole = "".join(texts)
    if len(whole.encode()) < window_bytes:
        return
    folder = tmp_path_factory.mktemp("texts")
    files = [folder / f"{number}.txt" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_bytes(text.encode())
    windows = Windows(files, window_bytes)
    joined = "".join(windows.text(index) for index in range(len(windows)))
    assert whole.startswith(joined)
    assert len(whole.encode()) - len(joined.encode()) < window_bytes, "only what fills no window is left out"
    assert windows.text(0, 2.5 * len(whole.encode()) / window_bytes).startswith(whole + whole), "goes round"


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
@pytest.mark.parametrize("lengths", ["full", "natural"])
def test_plain_text_packs_full_rows_or_cuts_natural_ones(tmp_path, bpe, tokenizer, lengths) -> None:
    (tmp_path / "x.txt").write_text("é🎉 " * 300 + PROSE[:20_000])
    name = str(bpe) if tokenizer == "bpe" else tokenizer
    samples = open_samples(Data(path=str(tmp_path), tokenizer=name, sequence_tokens=64, lengths=lengths))
    rows = [samples[index] for index in range(len(samples))]
    assert same(rows, samples.__getitems__(range(len(samples))))
    sizes = {len(row["input_ids"]) for row in rows}
    assert max(sizes) == 64
    assert sizes == {64} or lengths == "natural"
    if tokenizer == "bytes":
        assert text_of(rows[40]["input_ids"]) in PROSE
    batch = samples.collate(rows)
    assert (batch["input_ids"] == batch["labels"]).all() or lengths == "natural"


def test_a_short_text_still_fills_a_row(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("ab")
    samples = open_samples(Data(path=str(tmp_path / "x.txt"), sequence_tokens=32))
    assert len(samples) == 1
    assert text_of(samples[0]["input_ids"]) == "ab" * 16


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_are_texts_cut_at_sequence_tokens(tmp_path: Path, kind: str) -> None:
    if kind == "jsonl":
        path = jsonl(tmp_path / "x.jsonl", [{"body": word} for word in WORDS])
    else:
        path = parquet(tmp_path / "x.parquet", {"id": range(len(WORDS)), "body": WORDS})
    samples = open_samples(Data(path=path, text_key="body", sequence_tokens=20))
    assert samples.classes is None
    rows = samples.__getitems__(range(len(samples)))
    assert same(rows, [samples[index] for index in range(len(samples))])
    assert [text_of(row["input_ids"]) for row in rows[:-1]] == [word[:20] for word in WORDS[:-1]]
    assert len(rows[-1]["input_ids"]) == 1, "no model takes a row without tokens"


@pytest.mark.parametrize(("lengths", "width"), [("full", 50), ("natural", 14)])
def test_padding_is_masked_and_without_label(tmp_path: Path, lengths, width) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"text": word} for word in WORDS])
    samples = open_samples(Data(path=path, sequence_tokens=50, lengths=lengths))
    batch = samples.collate([samples[0], samples[1]])
    assert {name: tuple(value.shape) for name, value in batch.items()} == dict.fromkeys(batch, (2, width))
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 14]
    assert torch.equal(batch["labels"] == IGNORED, batch["attention_mask"] == 0)
    kept = batch["attention_mask"] == 1
    assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_labels_are_classes(tmp_path: Path, kind: str) -> None:
    texts, labels = ["good", "bad", "good again"], ["pos", "neg", "pos"]
    if kind == "jsonl":
        path = jsonl(tmp_path / "x.jsonl", [{"text": t, "y": y} for t, y in zip(texts, labels, strict=True)])
    else:
        path = parquet(tmp_path / "x.parquet", {"text": texts, "y": labels})
    samples = open_samples(Data(path=path, label_key="y", sequence_tokens=16))
    assert samples.classes == 2
    batch = samples.collate([samples[index] for index in range(3)])
    assert batch["labels"].tolist() == [1, 0, 1]
    assert samples.worst_batch(5)["labels"].shape == (5,)


def test_labels_of_other_kinds() -> None:
    assert numbered([3, 0, 1])[1] == 4
    assert numbered([-1, 1, -1])[0].tolist() == [0, 1, 0]
    assert numbered([True, False])[0].tolist() == [1, 0]
    with pytest.raises(InvalidConfigError, match="sample 1 has no label"):
        numbered(["a", None])


@pytest.mark.parametrize("kind", ["jsonl", "natural", "synthetic", "text"])
def test_the_worst_batch_is_full_and_nothing_is_larger(tmp_path: Path, kind: str) -> None:
    data = {
        "jsonl": lambda: Data(path=jsonl(tmp_path / "x.jsonl", [{"text": "ab"}, {"text": "abc"}]), sequence_tokens=24),
        "natural": lambda: Data(
            path=jsonl(tmp_path / "x.jsonl", [{"text": w} for w in WORDS]), sequence_tokens=24, lengths="natural"
        ),
        "synthetic": lambda: Data(kind="synthetic", sequence_tokens=24, lengths="natural", synthetic_samples=9),
        "text": lambda: Data(path=str(Path(__file__)), kind="text", sequence_tokens=24),
    }[kind]()
    samples = open_samples(data)
    worst = samples.worst_batch(3)
    assert {tuple(value.shape) for value in worst.values()} == {(3, 24)}
    assert worst["attention_mask"].all()
    assert (worst["labels"] != IGNORED).all()
    ordinary = samples.collate([samples[0], samples[1], samples[0]])
    assert ordinary["input_ids"].shape <= worst["input_ids"].shape
    assert worst["input_ids"].dtype == ordinary["input_ids"].dtype


def test_synthetic_texts_are_the_same_every_time() -> None:
    made = [open_samples(Data(kind="synthetic", sequence_tokens=40, lengths="natural")) for _ in range(2)]
    assert same([made[0][index] for index in range(9)], made[1].__getitems__(range(9)))
    assert len({len(made[0][index]["input_ids"]) for index in range(30)}) > 5
    assert np.ptp([len(row["input_ids"]) for row in open_samples(Data(kind="synthetic")).__getitems__(range(9))]) == 0


def test_a_broken_line_is_named_when_it_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "fine"}\n\n{"text": "torn\n')
    samples = open_samples(Data(path=str(path)))
    assert len(samples) == 2
    with pytest.raises(InvalidConfigError, match=r"x\.jsonl:3 is no JSON"):
        samples[1]


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        ({"body": ["t"]}, {}, "has no column 'text', but body"),
        ({"text": ["t"]}, {"label_key": "y"}, "has no column 'y', but text"),
        ({"text": [1]}, {}, "has under 'text' no text, but int64"),
        ({"text": np.array([], dtype=str)}, {}, "holds no rows"),
        ({"text": ["t", None]}, {}, "row 1 of .*x.parquet has no 'text'"),
        ({"text": ["t", "u"], "y": ["a", None]}, {"label_key": "y"}, "sample 1 has no label"),
    ],
)
def test_a_parquet_file_that_does_not_fit_is_one_line(tmp_path: Path, columns, options, expected) -> None:
    path = parquet(tmp_path / "x.parquet", columns)
    with pytest.raises(InvalidConfigError, match=expected) as caught:
        open_samples(Data(path=path, **options)).__getitems__(range(len(columns["text"])))
    assert "\n" not in str(caught.value)


def test_a_torn_parquet_file_is_one_line(tmp_path: Path) -> None:
    path = Path(parquet(tmp_path / "x.parquet", {"text": ["words"] * 100}))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidConfigError, match=r"x\.parquet cannot be read"):
        open_samples(Data(path=str(path)))


def test_parquet_files_are_one_data_set(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", {"text": ["one", "two"]})
    parquet(tmp_path / "b.parquet", {"text": ["three"], "more": [1]})
    samples = open_samples(Data(path=str(tmp_path)))
    assert [text_of(samples[index]["input_ids"]) for index in range(3)] == ["one", "two", "three"]

"""What lies there, and whether it can be learnt from: said before anything heavy is loaded."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from autotuner.errors import AutotuneError
from autotuner.workloads.training.data import Data

SHIPPED = Path(__file__).parents[3] / "search_spaces" / "data"


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_shipped_text_is_english_prose_of_the_promised_size() -> None:
    data = Data(path=str(SHIPPED))
    data.check()
    kind, files = data.locate()
    assert (kind, [file.name for file in files]) == ("text", ["autotune_docs.txt"])
    assert 60_000 <= files[0].stat().st_size <= 150_000
    assert files[0].read_text().count(" the ") > 500


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.txt", "text"), ("a.md", "text"), ("a.jsonl", "jsonl"), ("a.ndjson", "jsonl"), ("a.PARQUET", "parquet")],
)
def test_kind_goes_by_the_file(tmp_path: Path, name: str, kind: str) -> None:
    assert Data(path=str(write(tmp_path / name, "x"))).locate()[0] == kind


def test_a_folder_and_a_glob_give_files_in_order_without_hidden_ones(tmp_path: Path, monkeypatch) -> None:
    for name in ("b.txt", "a/c.txt", ".cache/d.txt", "README.md", ".e.txt"):
        write(tmp_path / "texts" / name, "words")
    monkeypatch.chdir(tmp_path)
    folder = [str(file) for file in Data(path="texts").locate()[1]]
    assert folder == ["texts/a/c.txt", "texts/b.txt"]
    assert [str(file) for file in Data(path="texts/**/*.txt").locate()[1]][-2:] == folder
    assert [str(file) for file in Data(path=f"{tmp_path}/texts/?.txt").locate()[1]] == [f"{tmp_path}/texts/b.txt"]


def test_a_file_of_any_name_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    file = write(tmp_path / "corpus", "words")
    assert Data(path=str(file), kind="text").locate() == ("text", (file,))


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        ({}, {"path": "nowhere.txt"}, "there is no nowhere.txt"),
        ({}, {"path": "*.jsonl"}, "there is no *.jsonl"),
        ({"a/x.txt": "t", "a/y.jsonl": "{}"}, {"path": "a"}, "a holds jsonl and text (say which with data.kind)"),
        ({"a/x.bin": "t"}, {"path": "a"}, "a holds no text, JSONL, parquet or image files"),
        ({"a/x.txt": "t"}, {"path": "a", "kind": "jsonl"}, "no jsonl file in a"),
        ({"x.txt": ""}, {"path": "x.txt"}, "x.txt is empty"),
        ({"x.txt": gzip.compress(b"words " * 99)}, {"path": "x.txt"}, "x.txt is no UTF-8 text at byte 1"),
        ({"x.txt": "text caf\u00e9".encode("latin-1")}, {"path": "x.txt"}, "x.txt is no UTF-8 text at byte 8"),
        ({"x.jsonl": "\n\n"}, {"path": "x.jsonl"}, "x.jsonl holds only blank lines"),
        ({"x.jsonl": "\nwords\n"}, {"path": "x.jsonl"}, "x.jsonl:2 is no JSON"),
        ({"x.jsonl": "[1]"}, {"path": "x.jsonl"}, "x.jsonl:1 is no JSON object"),
        ({"x.jsonl": '{"body": "t"}'}, {"path": "x.jsonl"}, "x.jsonl:1 has no 'text', but body"),
        ({"x.jsonl": '{"text": "t"}'}, {"path": "x.jsonl", "label_key": "y"}, "x.jsonl:1 has no 'y', but text"),
        ({"x.jsonl": '{"text": 5}'}, {"path": "x.jsonl"}, "x.jsonl:1 has under 'text' no text, but 5"),
        ({"x.parquet": "words"}, {"path": "x.parquet"}, "x.parquet is no parquet file"),
        ({"x.jpg": "b"}, {"path": "x.jpg"}, "x.jpg is no folder"),
        ({"a/x.jpg": "b"}, {"path": "a"}, "a/x.jpg has no class"),
        ({"x.txt": "t"}, {"path": "x.txt", "tokenizer": "./none.json"}, "data.tokenizer: there is no ./none.json"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(tmp_path, monkeypatch, files, options, expected) -> None:
    for name, content in files.items():
        write(tmp_path / name, content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AutotuneError) as caught:
        Data(**options).check()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_character_that_the_checked_head_cuts_is_no_mistake(tmp_path: Path) -> None:
    Data(path=str(write(tmp_path / "x.txt", "x" * 65_535 + "é" * 10))).check()


@pytest.mark.parametrize("options", [{}, {"path": "x", "kind": "synthetic"}, {"path": "x", "shuffle": True}])
def test_options_that_contradict_or_do_not_exist(options) -> None:
    with pytest.raises(ValidationError):
        Data(**options)


def test_identity_follows_names_sizes_and_heads(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", json.dumps({"text": "one"}))
    tokenizer = write(tmp_path / "tokenizer.json", "{}")
    data = Data(path=str(file), tokenizer=str(tokenizer))
    hashes = [data.identity()["data_hash"]]
    assert data.identity() == {"data": "x.jsonl", "data_hash": hashes[0]}
    write(file, json.dumps({"text": "two"}))
    hashes.append(data.identity()["data_hash"])
    write(tokenizer, "{ }")
    hashes.append(data.identity()["data_hash"])
    write(file, json.dumps({"text": "three"}))
    hashes.append(data.identity()["data_hash"])
    assert len(set(hashes)) == 4
    assert Data(kind="synthetic").identity()["data"] == "synthetic"


def test_checking_loads_nothing_heavy(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", '{"text": "t"}')
    program = f"""
import sys
from autotuner.workloads.training.data import Data
data = Data(path={str(file)!r}); data.check(); data.identity()
print(*({{"torch", "transformers", "PIL", "pyarrow", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

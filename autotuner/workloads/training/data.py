"""The data set of a training as a user writes it: where it lies, what it is, and how samples are made of it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autotuner.errors import AutotuneError, UsageError

Kind = Literal["text", "jsonl", "parquet", "images", "synthetic"]

SUFFIXES: Mapping[Kind, tuple[str, ...]] = {  # what a folder is searched for; a file of its own may have any suffix
    "text": (".txt",),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
    "images": (".jpg", ".jpeg", ".png", ".webp"),
}
ALSO_TEXT = (".text", ".md", ".rst")  # in a folder these explain the data
EXTRAS = {"parquet": ("pyarrow", "parquet"), "images": ("PIL", "images")}  # kind -> (module, extra of this project)
HEAD_BYTES = 1 << 16
HASHED_HEADS = 64  # files whose first bytes the identity hashes; of the others the name and the size


class Data(BaseModel):
    """A data set on this machine, and how samples are made of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(None, description="A file, a folder or a glob, relative to where the command runs.")
    kind: Literal["auto", "text", "jsonl", "parquet", "images", "synthetic"] = Field(
        "auto", description="auto goes by the names of the files; synthetic needs no path."
    )
    text_key: str = Field("text", description="Of JSONL and parquet: where the text stands.")
    label_key: str | None = Field(None, description="Of JSONL and parquet: where the class stands, to classify.")
    tokenizer: str | None = Field(
        None, description="`bytes`, a tokenizer.json, a folder or a hub id; null is the model's own, or bytes."
    )
    sequence_tokens: int = Field(256, ge=2, description="Longer samples are cut.")
    image_size: int = Field(224, ge=8, description="Side of an image in pixels.")
    lengths: Literal["full", "natural"] = Field(
        "full", description="full: every row has sequence_tokens; natural: as long as the longest of its batch."
    )
    synthetic_samples: int = Field(1024, ge=1, description="How many samples `kind: synthetic` makes up.")

    @model_validator(mode="after")
    def _path_or_synthetic(self) -> Self:
        if (self.path is None) != (self.kind == "synthetic"):
            raise ValueError("give path (a file, folder or glob), or kind: synthetic without one")
        return self

    def locate(self) -> tuple[Kind, tuple[Path, ...]]:
        """What the data is, and its files in order.

        Raises:
            UsageError: There are none, or they are of several kinds.
        """
        if self.path is None:
            return "synthetic", ()
        candidates = tuple(self._candidates())
        kind = self._kind_of(candidates) if self.kind == "auto" else self.kind
        if Path(self.path).expanduser().is_dir():
            candidates = tuple(file for file in candidates if file.suffix.lower() in SUFFIXES[kind])
        if not candidates:
            raise UsageError(f"data.path: no {kind} file in {self.path}", f"searched for {', '.join(SUFFIXES[kind])}")
        return kind, candidates

    def check(self) -> None:
        """Look, without loading anything heavy, whether samples can be made of it.

        Raises:
            UsageError: A path, a format, a column or a library is missing.
        """
        kind, files = self.locate()
        module, extra = EXTRAS.get(kind, ("", ""))
        if module and find_spec(module) is None:
            raise UsageError(f"data of kind {kind} needs {module}", f"pip install 'autotune-loop[{extra}]'")
        if kind != "synthetic" and not any(file.stat().st_size for file in files):
            raise UsageError(f"data.path: {files[0]} is empty", "name a file with samples")
        if kind != "images":
            self._check_tokenizer()
        match kind:
            case "text":
                _check_utf8(files)
            case "jsonl":
                self._check_first_line(files)
            case "parquet":
                _check_magic(files)
            case "images":
                classes_of(str(self.path), files)

    def identity(self) -> Mapping[str, str]:
        """Name and hash of the data: names and sizes of all files, and the heads of some; a local tokenizer too."""
        _, files = self.locate()
        digest = hashlib.sha256(f"{self.synthetic_samples}".encode() if not files else b"")
        for file in files:
            digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
        for file in files[:: max(1, len(files) // HASHED_HEADS)]:
            digest.update(_head(file))
        tokenizer = Path(self.tokenizer or "").expanduser()
        tokenizer = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
        if self.tokenizer is not None and tokenizer.is_file():
            digest.update(tokenizer.read_bytes())
        return {"data": Path(self.path or "synthetic").name, "data_hash": digest.hexdigest()[:16]}

    def _candidates(self) -> Iterator[Path]:
        """Files under the path, in the order of their names; hidden ones are none."""
        path = Path(str(self.path)).expanduser()
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
                    yield file
        elif path.exists():
            yield path
        elif matched := sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))):
            yield from (file for file in matched if file.is_file())
        else:
            raise UsageError(f"data.path: there is no {self.path}", "a file, a folder or a glob, relative to here")

    def _kind_of(self, files: tuple[Path, ...]) -> Kind:
        kinds = {kind for kind, suffixes in SUFFIXES.items() if any(file.suffix.lower() in suffixes for file in files)}
        if not kinds and len(files) == 1 and files[0].suffix.lower() in ALSO_TEXT:
            kinds = {"text"}
        if len(kinds) == 1:
            return kinds.pop()
        found = f"holds {' and '.join(sorted(kinds))}" if kinds else "holds no text, JSONL, parquet or image files"
        raise UsageError(f"data.path: {self.path} {found}", "say which with data.kind")

    def _check_first_line(self, files: tuple[Path, ...]) -> None:
        for file in files:
            with file.open("rb") as lines:
                number, first = next(((n, line) for n, line in enumerate(lines, 1) if line.strip()), (0, b""))
            if first:
                parsed_line(first, f"{file}:{number}", self.text_key, self.label_key, UsageError)
                return
        raise UsageError(f"data.path: {files[0]} holds only blank lines", "one JSON object a line")

    def _check_tokenizer(self) -> None:
        name = self.tokenizer
        if name is not None and name.startswith((".", "/", "~")) and not Path(name).expanduser().exists():
            raise UsageError(f"data.tokenizer: there is no {name}", "bytes, a tokenizer.json, a folder or a hub id")


def parsed_line(
    line: bytes, place: str, text_key: str, label_key: str | None, error: type[AutotuneError]
) -> tuple[str, object]:
    """The text and the label (None where none is asked for) of one JSONL line.

    Raises:
        error: It is no JSON object, or lacks a key; the message names `place`.
    """
    try:
        row = json.loads(line)
    except ValueError as problem:
        raise error(f"data: {place} is no JSON: {problem}", "one JSON object a line") from problem
    if not isinstance(row, dict):
        raise error(f"data: {place} is no JSON object", "one JSON object a line")
    for key in (text_key, *([] if label_key is None else [label_key])):
        if key not in row:
            raise error(
                f"data: {place} has no {key!r}, but {', '.join(map(str, row))}", "data.text_key, data.label_key"
            )
    if not isinstance(row[text_key], str):
        raise error(f"data: {place} has under {text_key!r} no text, but {row[text_key]!r:.40}", "set data.text_key")
    return row[text_key], None if label_key is None else row[label_key]


def classes_of(path: str, files: tuple[Path, ...]) -> tuple[str, ...]:
    """The classes of an image folder: the names of its sub-folders.

    Raises:
        UsageError: Images lie beside the class folders, or the path is no folder.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UsageError(f"data.path: {path} is no folder", "images lie in one sub-folder a class: folder/cat/1.jpg")
    if astray := next((file for file in files if file.parent == root), None):
        raise UsageError(f"data.path: {astray} has no class", "images lie in one sub-folder a class: folder/cat/1.jpg")
    return tuple(sorted({file.relative_to(root).parts[0] for file in files}))


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(HEAD_BYTES)


def _check_utf8(files: tuple[Path, ...]) -> None:
    for file in files[:HASHED_HEADS]:
        head = _head(file)
        try:
            head.decode()
        except UnicodeDecodeError as error:
            if error.start < len(head) - 4 or len(head) < HEAD_BYTES:  # or a character that the head cut
                raise UsageError(f"data.path: {file} is no UTF-8 text at byte {error.start}", "convert it") from error


def _check_magic(files: tuple[Path, ...]) -> None:
    for file in files[:HASHED_HEADS]:
        if not _head(file).startswith(b"PAR1"):
            raise UsageError(f"data.path: {file} is no parquet file", "say what it is with data.kind")

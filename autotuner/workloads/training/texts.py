"""Where texts come from: windows of plain text, lines of JSONL, rows of parquet; read when asked for."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autotuner.errors import InvalidConfigError, UsageError
from autotuner.workloads.training.data import Data, parsed_line

LONGEST_CHARACTER_BYTES = 4


class Texts(Protocol):
    """Texts by number, with their labels.

    Attributes:
        labels: The class of every text, or None for texts without.
        classes: How many classes there are, or None.
    """

    labels: NDArray[np.int64] | None
    classes: int | None

    def __len__(self) -> int: ...

    def text(self, index: int) -> str:
        """The text `index`.

        Raises:
            InvalidConfigError: It is broken; the message names file and line.
        """
        ...


class Windows:
    """All files as one long text, cut in windows of `window_bytes`, which begin and end with whole characters."""

    labels: NDArray[np.int64] | None = None
    classes: int | None = None

    def __init__(self, files: Sequence[Path], window_bytes: int) -> None:
        self._files = [file for file in files if file.stat().st_size]
        if not self._files:
            raise UsageError(f"data.path: {files[0]} is empty", "name a file with samples")
        self._ends_bytes = np.cumsum([file.stat().st_size for file in self._files]).tolist()
        self.window_bytes = window_bytes

    def __len__(self) -> int:
        return int(max(1, self._ends_bytes[-1] // self.window_bytes))

    def text(self, index: int, windows: float = 1.0) -> str:
        """The text from the start of a window on, for as many windows; after the end follows the beginning."""
        size = int(self.window_bytes * windows)
        raw = self._read(index * self.window_bytes, size + LONGEST_CHARACTER_BYTES)
        begin, end = _next_character(raw, 0), _next_character(raw, size)
        return raw[begin:end].decode(errors="replace")

    def _read(self, start: int, size: int) -> bytes:
        """Bytes of the files laid end to end, and again from the first one."""
        total, parts, number = self._ends_bytes[-1], list[bytes](), 0
        start %= total
        number = bisect_right(self._ends_bytes, start)
        while size > 0:
            begin = self._ends_bytes[number - 1] if number else 0
            with self._files[number].open("rb") as file:
                file.seek(start - begin)
                parts.append(file.read(min(size, self._ends_bytes[number] - start)))
            if not parts[-1]:
                raise InvalidConfigError(f"data: {self._files[number]} has shrunk", "leave the data as it is")
            size -= len(parts[-1])
            start = (start + len(parts[-1])) % total
            number = bisect_right(self._ends_bytes, start)
        return b"".join(parts)


def _next_character(raw: bytes, place: int) -> int:
    """The first place from `place` on where a character begins: a byte that is no continuation (0b10xxxxxx)."""
    for candidate in range(place, min(place + LONGEST_CHARACTER_BYTES, len(raw))):
        if raw[candidate] & 0xC0 != 0x80:
            return candidate
    return min(place + LONGEST_CHARACTER_BYTES, len(raw))


class JsonLines:
    """One JSON object a line. Only the places of the lines are held in memory, and the labels."""

    def __init__(self, files: Sequence[Path], data: Data) -> None:
        self._files, self._data = files, data
        places, labels = list[tuple[int, int]](), list[object]()
        for number, file in enumerate(files):
            start = 0
            with file.open("rb") as lines:
                for line_number, line in enumerate(lines, 1):
                    if line.strip():
                        places.append((number, start))
                        if data.label_key is not None:
                            labels.append(self._parse(line, f"{file}:{line_number}")[1])
                    start += len(line)
        if not places:
            raise InvalidConfigError(f"data: {files[0]} holds no lines", "one JSON object a line")
        self._places = np.asarray(places, dtype=np.int64)
        self.labels: NDArray[np.int64] | None = None
        self.classes: int | None = None
        if data.label_key is not None:
            self.labels, self.classes = numbered(labels)

    def __len__(self) -> int:
        return len(self._places)

    def text(self, index: int) -> str:
        """The text of a line."""
        number, start = (int(value) for value in self._places[index])
        file = self._files[number]
        with file.open("rb") as lines:
            lines.seek(start)
            line = lines.readline()
        try:
            return self._parse(line, f"{file}")[0]
        except InvalidConfigError:  # only now is its number worth counting
            self._parse(line, f"{file}:{_line_number(file, start)}")
            raise

    def _parse(self, line: bytes, place: str) -> tuple[str, object]:
        return parsed_line(line, place, self._data.text_key, self._data.label_key, InvalidConfigError)


def _line_number(file: Path, start: int) -> int:
    with file.open("rb") as opened:
        return opened.read(start).count(b"\n") + 1


class ParquetRows:
    """Rows of parquet files. The column of texts is held in memory, as Arrow; forked processes share it."""

    def __init__(self, files: Sequence[Path], data: Data) -> None:
        import pyarrow

        columns = [data.text_key, *([] if data.label_key is None else [data.label_key])]
        tables = [_columns(file, columns) for file in files]
        try:
            table = pyarrow.concat_tables(tables, promote_options="permissive")
        except pyarrow.ArrowException as error:
            reason = " ".join(str(error).split())[:120]
            raise InvalidConfigError(f"data: the parquet files with {files[0]} differ: {reason}", "name one") from error
        if not len(table):
            raise InvalidConfigError(f"data: {files[0]} holds no rows", "name a file with samples")
        self._texts, self._files, self._key = table.column(data.text_key), files, data.text_key
        self.labels: NDArray[np.int64] | None = None
        self.classes: int | None = None
        if data.label_key is not None:
            self.labels, self.classes = numbered(table.column(data.label_key).to_pylist())

    def __len__(self) -> int:
        return len(self._texts)

    def text(self, index: int) -> str:
        """The text of a row."""
        text = self._texts[index].as_py()
        if text is None:
            places = f"{self._files[0]}" if len(self._files) == 1 else f"the parquet files after {self._files[0]}"
            raise InvalidConfigError(f"data: row {index} of {places} has no {self._key!r}", "drop rows without text")
        return str(text)


def _columns(file: Path, columns: list[str]) -> Any:
    """The table of these columns, the first one as text."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if missing := [column for column in columns if column not in names]:
                found = f"data: {file} has no column {missing[0]!r}, but {', '.join(names)}"
                raise InvalidConfigError(found, "set data.text_key, data.label_key")
            table = opened.read(columns=columns, use_threads=False)  # its threads would not survive a fork
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InvalidConfigError(f"data: {file} cannot be read: {reason}", "is it a whole parquet file?") from error
    kind = table.schema.field(columns[0]).type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise InvalidConfigError(f"data: {file} has under {columns[0]!r} no text, but {kind}", "set data.text_key")
    return table.select(columns)


class SyntheticTexts:
    """Made up, for an experiment that needs no data: letters at random, the same for the same number."""

    def __init__(self, data: Data) -> None:
        self._count, self._characters = data.synthetic_samples, data.sequence_tokens
        self._natural = data.lengths == "natural"
        self.labels: NDArray[np.int64] | None = None
        self.classes: int | None = None
        if data.label_key is not None:
            self.labels, self.classes = np.arange(self._count, dtype=np.int64) % 2, 2

    def __len__(self) -> int:
        return self._count

    def text(self, index: int) -> str:
        """Enough for full rows; for natural lengths any share of a row down to an eighth."""
        random = np.random.default_rng(index)
        least = max(1, self._characters // 8)
        count = int(random.integers(least, self._characters + 1)) if self._natural else 4 * self._characters
        return random.integers(ord("a"), ord("z") + 1, count, dtype=np.uint8).tobytes().decode()


def numbered(labels: Iterable[object]) -> tuple[NDArray[np.int64], int]:
    """Labels as classes from 0, and how many classes there are.

    Whole numbers from 0 are taken as they are, others (names, negative numbers, booleans) in the order of their text.

    Raises:
        InvalidConfigError: A sample has none.
    """
    found = list(labels)
    if None in found:
        raise InvalidConfigError(f"data: sample {found.index(None)} has no label", "drop samples without label")
    if all(isinstance(label, int) and not isinstance(label, bool) and label >= 0 for label in found):
        classes = np.asarray(found, dtype=np.int64)
        return classes, int(classes.max()) + 1
    numbers = {name: number for number, name in enumerate(sorted({str(label) for label in found}))}
    return np.asarray([numbers[str(label)] for label in found], dtype=np.int64), len(numbers)

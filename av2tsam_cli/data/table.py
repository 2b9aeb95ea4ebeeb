"""Reading a CSV that a stranger wrote."""

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from av2tsam_cli.errors import MediaError


def read_table(path: Path, columns: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines of a CSV with a header.

    Args:
        path: The file.
        columns: Columns that it has to have.

    Yields:
        Where a line is (file and number, for messages), and its cells by column; missing ones are
        empty.

    Raises:
        MediaError: It cannot be read as CSV, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="", strict=True)
            table.fieldnames = [name.strip() for name in table.fieldnames or ()]
            _require(path, columns, table.fieldnames)
            for cells in table:
                yield f"{path}: line {table.line_num}", {k: v for k, v in cells.items() if k}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"{path}: cannot be read as CSV ({error}); copy it again") from error


def _require(path: Path, columns: Collection[str], header: Sequence[str]) -> None:
    if missing := sorted(set(columns) - set(header)):
        raise MediaError(
            f"{path}: has no column {', '.join(missing)}, only: {', '.join(header) or 'none'}; use "
            "the CSV that comes with the data"
        )


def one_of(where: str, what: str, value: str, known: Collection[str]) -> str:
    """A cell whose values are known.

    Raises:
        MediaError: It holds another.
    """
    if value not in known:
        raise MediaError(f"{where}: {what} {value!r} is unknown; use one of {', '.join(known)}")
    return value


def one_component(where: str, name: str | None) -> str:
    """A cell that names one component of a path, so that it cannot lead out of the data folder.

    Raises:
        MediaError: It would, or it is empty.
    """
    if not name or name in {".", ".."} or any(sign in name for sign in "/\\\0"):
        raise MediaError(
            f"{where}: {name or ''!r} cannot be the name of a video or category, as it would lead "
            "out of the data folder; correct the line"
        )
    return name

"""Whether what was read is what the configuration means: columns that no file has, days that came to nothing.

Belongs here: judging pieces before anything is published. Does not: thresholds of a night (``lake.promises``), looking
at data without a night (``survey``).
"""

from collections.abc import Mapping
from datetime import date

from pipelines.config import Config
from pipelines.raw.columns import RAW_COLUMNS, REQUIRED
from pipelines.raw.known import Piece, has_column
from pipelines.raw.places import DataError
from pipelines.sections import Source

MOST_KEYS = 4  # of an object around the list that holds the rows
SHOWN = 12  # names in a message


def stop_where_columns_are_missing(config: Config, pieces: Mapping[str, list[Piece]], day: date) -> None:
    """Check that the files have what the configuration names.

    Raises:
        DataError: with every problem.
    """
    problems = []
    for kind, found in pieces.items():
        problems += missing_columns(kind, getattr(config, kind), found, day)
    problems += _all_before_start(pieces["interactions"], config.start_date)
    problems += _property_log(pieces["items"])
    if problems:
        raise DataError(problems)


def missing_columns(kind: str, source: Source, pieces: list[Piece], day: date) -> list[str]:
    """Mapped or required columns that no file has, or that a file of the day has no longer."""
    read = [p for p in pieces if _holds_something(p) and not (p.file_day and p.file_day > day)]
    if not read:
        return []
    problems = []
    required = [c for c in REQUIRED[kind] if c not in source.defaults]
    for column in dict.fromkeys([*source.columns, *required]):
        if column not in RAW_COLUMNS[kind] or column in source.sometimes:
            continue
        problems += _unreadable(kind, source, column, read)
        without = [p for p in read if not has_column(p, column)]
        if len(without) == len(read):
            problems.append(_nowhere(kind, source, column, read))
        else:
            problems += _no_longer(kind, source, column, without, day)
    return problems


def _holds_something(piece: Piece) -> bool:
    """Whether a file was read and is not empty; one that is lacks nothing."""
    return piece.shape is not None and bool(piece.shape.header or piece.account.rows or piece.account.rejects)


def _nowhere(kind: str, source: Source, column: str, read: list[Piece]) -> str:
    example = read[0]
    names = ", ".join(example.shape.header[:SHOWN]) if example.shape else ""
    wanted = " or ".join(f"'{n}'" for n in source.names_of(column))
    what = f"{kind}.columns.{column} = {wanted}" if column in source.columns else f"{kind}: {column} is required"
    looks = _hint(kind, example)
    advice = f'write {kind}.columns.{column} = "<its name>"'
    advice += "" if column in source.columns and column not in REQUIRED[kind] else f" or {kind}.defaults.{column}"
    has = names or "no object" if example.shape and example.shape.format == "json" else names
    return f"{what}: no file below {source.path} has that column; {example.source} has {has}; {advice}{looks}"


def _hint(kind: str, example: Piece) -> str:
    """What else may be the matter, by the looks of a header."""
    header = example.shape.header if example.shape else ()
    if not header:
        return "; rows have to be objects, not lists" if example.shape and example.shape.format == "json" else ""
    if all(h.startswith("'") and h.endswith("'") for h in header):
        return "; single quotes are no quotes here: write double ones"
    if len(header) == 1 and len(header[0].split()) > 1:
        return f'; if blanks stand between its columns, set {kind}.delimiter = " "'
    if all(h.startswith('"') and h.endswith('"') for h in header):
        return f'; set {kind}.quoting = "on"'
    if example.shape and example.shape.format == "json" and len(header) <= MOST_KEYS:
        return f'; if a list in it holds the rows, set {kind}.records = "<its path>"'
    return "; if the file has no header, name its columns by number or set header" if _is_data(example) else ""


def _unreadable(kind: str, source: Source, column: str, read: list[Piece]) -> list[str]:
    """A mapped column of which not a single cell could be read."""
    notes = [(p, n) for p in read for n in p.account.notes if n[0] == column]
    if not notes or any(p.account.present.get(column) for p in read):
        return []
    cells = sum(n[2] for _, n in notes)
    piece, (_, reason, _, position, value) = notes[0]
    wanted = " or ".join(f"'{n}'" for n in source.names_of(column))
    what = f"{kind}.columns.{column} = {wanted}: none of its {cells} cells could be read ({reason})"
    return [
        f"{what}; {piece.source} line {position} holds '{value}'; set time_format or decimal, or take the column out"
    ]


def _is_data(piece: Piece) -> bool:
    """Whether what was taken for a header looks like a row."""
    header = piece.shape.header if piece.shape else ()
    return any(h.replace(".", "").replace("-", "").replace(":", "").replace(" ", "").isdigit() for h in header if h)


def _no_longer(kind: str, source: Source, column: str, without: list[Piece], day: date) -> list[str]:
    """A file of the night itself lacks what others have: renamed or dropped."""
    problems = []
    for piece in without:
        if piece.file_day != day or piece.shape is None:
            continue
        names = ", ".join(piece.shape.header[:SHOWN])
        wanted = " or ".join(f"'{n}'" for n in source.names_of(column))
        advice = f'{kind}.columns.{column} = [{wanted.replace(" or ", ", ")}, "<its new name>"]'
        if column not in REQUIRED[kind]:
            advice += f', or {kind}.sometimes = ["{column}"]'
        problems.append(
            f"{piece.source}: {column} ({wanted}) is not in it, other files have it; it has {names}; write {advice}"
        )
    return problems


def _all_before_start(pieces: list[Piece], start: date) -> list[str]:
    """A log whose every event lies before the first day."""
    days = sorted(d for p in pieces for d in p.account.days if d)
    if not days or date.fromisoformat(days[-1]) >= start:
        return []
    source = next(p.source for p in pieces if p.account.days)
    what = f"all events lie before start_date {start}: from {days[0]} to {days[-1]}"
    return [f"{source}: {what}; set start_date, or interactions.time_unit or time_origin if the times are read wrongly"]


def _property_log(pieces: list[Piece]) -> list[str]:
    """A catalogue that is a log of (item, property, value), of which no column is read."""
    content = [c for c in RAW_COLUMNS["items"] if c not in ("item_id", "created_at", "updated_at")]
    headers = {p.source: p.shape.header for p in pieces if p.shape}
    if any(has_column(p, c) for p in pieces for c in content):
        return []
    for source, header in headers.items():
        names = {h.casefold() for h in header}
        if "value" in names and names & {"property", "key", "attribute", "name"}:
            what = f"a log of properties ({', '.join(header)}), of which no column is a text or a file"
            return [f"{source}: {what} of an item; make it a row an item, `nightloom import retailrocket` does"]
    return []

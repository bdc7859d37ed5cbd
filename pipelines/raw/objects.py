"""The head of JSON text as objects, and which list in them holds the rows.

Belongs here: what a sample of JSON shows. Does not: our columns (``shape``), reading all of a file (``values``).
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from pipelines.raw.nested import EACH, parsed, written

SAMPLE_OBJECTS = 200
RECORDS_DEPTH = 3  # of objects around the list that holds the rows
KEY = re.compile(r'[\s,]*("(?:[^"\\]|\\.)*")\s*:\s*')
FIRST_OBJECT = re.compile(r"\s*\{")


def first_objects(text: str) -> tuple[bool, list[dict[str, Any]]]:
    """Whether each line holds whole values, and the first objects."""
    lines = [line for line in text.split("\n")[: SAMPLE_OBJECTS + 1] if line.strip()]
    read = [_values_in(line) for line in lines]
    found = [v for values, whole in read for v in values if whole and isinstance(v, dict)]
    opens = bool(lines) and not read[0][1] and lines[0].rstrip().endswith(("{", "[", ","))
    if found and 2 * sum(whole for _, whole in read) >= len(lines) and not opens and not text.lstrip().startswith("["):
        return True, found[:SAMPLE_OBJECTS]
    values, _ = _values_in(text.lstrip().removeprefix("["), SAMPLE_OBJECTS)
    objects = [v for v in values if isinstance(v, dict)]
    return (not objects and not text.lstrip().startswith(("[", "{"))), objects


def _values_in(text: str, most: int = SAMPLE_OBJECTS) -> tuple[list[Any], bool]:
    """The first values of a text of JSON values, with commas or without; and whether nothing else is in it."""
    decoder, at, found = json.JSONDecoder(parse_int=str), 0, list[Any]()
    while len(found) < most:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at >= len(text):
            return found, bool(found)
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return found, False
        found.append(value)
    return found, False


def records_path(objects: list[dict[str, Any]]) -> str:
    """Path of the only list of objects in the first value; empty where there are others, or many values."""
    if not objects or (len(objects) > 1 and len(objects[0]) > 2):
        return ""
    lists = [
        [*path] for path, value in _items_to(objects[0], 2) if isinstance(value, list) and value
        and all(isinstance(v, dict) for v in value)
    ]  # fmt: skip
    return ".".join(lists[0]) if len(lists) == 1 else ""


def _items_to(value: dict[str, Any], depth: int) -> Any:
    for key, inner in value.items():
        yield (key,), inner
        if isinstance(inner, dict) and depth > 1:
            yield from (((key, *path), v) for path, v in _items_to(inner, depth - 1))


def rows_below(value: Any, records: str) -> list[Any]:
    """The rows of a JSON value: itself, or the list at a path."""
    for step in parsed(records) if records else ():
        if step != EACH:
            value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, list) else [] if value is None else [value]


def list_ahead(text: str, records: str) -> tuple[str, int]:
    """Path of the list of objects in a value whose end is not in its head, and where its first object is."""
    for path, at in _lists_in(text, len(text) - len(text.lstrip()), ()):
        if written(path) == records or (not records and FIRST_OBJECT.match(text, at)):
            return written(path), at
    return "", 0


def _lists_in(text: str, at: int, before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """(path, position behind its bracket) of each list that an object begins, as far as the text goes."""
    decoder, at = json.JSONDecoder(), at + 1
    while key := KEY.match(text, at):
        path, at = (*before, json.loads(key[1])), key.end()
        if text[at : at + 1] == "[":
            yield path, at + 1
        elif text[at : at + 1] == "{" and len(path) < RECORDS_DEPTH:
            yield from _lists_in(text, at, path)
        try:
            _, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return

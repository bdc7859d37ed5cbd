"""Paths into nested data: ``title``, ``user.id``, ``items[].item_id``, ``items[0].price``, ``images[].large``.

Belongs here: what a path means, and finding it in objects, in Arrow types, in JSON. Does not: reading files.
"""

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

EACH = "*"  # the step into every element of a list
Path = tuple[str | int, ...]
STEP = re.compile(r"([^.\[\]]+)?((?:\[\d*\])*)")


def parsed(text: str) -> Path:
    """Steps of a path: names, positions in lists, ``EACH``."""
    steps: list[str | int] = []
    for part in text.split("."):
        found = STEP.fullmatch(part)
        if found is None:
            return (text,)
        if found[1]:
            steps.append(found[1])
        steps += [int(n) if n else EACH for n in re.findall(r"\[(\d*)\]", found[2])]
    return tuple(steps)


def written(path: Path) -> str:
    """A path as users write it."""
    out = ""
    for step in path:
        out += "[]" if step == EACH else f"[{step}]" if isinstance(step, int) else f".{step}" if out else step
    return out


def in_objects(names: Iterable[str], objects: list[dict[str, Any]]) -> Path | None:
    """The first of some names that an object has: as it is, as a path, in another case; None where none has."""
    keys = {k for o in objects for k in o}
    for name in names:
        if name in keys:
            return (name,)
        for o in objects:
            path = _walk_object(parsed(name), o)
            if path is not None:
                return path
    return _other_case(names, keys)


def _walk_object(path: Path, value: Any) -> Path | None:
    if not path:
        return ()
    step, rest = path[0], path[1:]
    if isinstance(value, list) and not isinstance(step, int):
        rest = rest if step == EACH else path
        ends = (_walk_object(rest, v) for v in value)
        end = next((e for e in ends if e is not None), None)
        return None if end is None else (EACH, *end)
    if isinstance(value, list):
        end = _walk_object(rest, value[step]) if isinstance(step, int) and step < len(value) else None
    else:
        end = _walk_object(rest, value[step]) if isinstance(value, dict) and step in value else None
    return None if end is None else (step, *end)


def in_schema(names: Iterable[str], schema: pa.Schema) -> Path | None:
    """Like ``in_objects`` for the columns of a table."""
    for name in names:
        if name in schema.names:
            return (name,)
        path = _walk_type(parsed(name), pa.struct(list(schema)))
        if path is not None:
            return path
    return _other_case(names, set(schema.names))


def _walk_type(path: Path, kind: pa.DataType) -> Path | None:
    if not path:
        return ()
    step, rest = path[0], path[1:]
    end: Path | None
    if is_list(kind):
        if isinstance(step, int):
            end = _walk_type(rest, kind.value_type)
            return None if end is None else (step, *end)
        end = _walk_type(rest if step == EACH else path, kind.value_type)
        return None if end is None else (EACH, *end)
    if not pa.types.is_struct(kind) or isinstance(step, int) or kind.get_field_index(step) < 0:
        return None
    end = _walk_type(rest, kind.field(step).type)
    return None if end is None else (step, *end)


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of any kind."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _other_case(names: Iterable[str], present: Iterable[str]) -> Path | None:
    found = in_header(names, list(present))
    return (found,) if found is not None else None


def in_header(names: Iterable[str], header: list[str]) -> str | None:
    """The first of some names that a header has: exactly, in another case, or before RecBole's type (``:token``)."""
    for name in names:
        if name in header:
            return name
    for name in names:
        for shape in (_folded, _untyped):
            hits = [h for h in header if shape(h) == _folded(name)]
            if len(hits) == 1:
                return hits[0]
    return None


def _folded(name: str) -> str:
    return name.strip().casefold()


def _untyped(name: str) -> str:
    stem, _, kind = name.rpartition(":")
    return _folded(stem) if kind in ("token", "token_seq", "float", "float_seq") else _folded(name)


def json_path(path: Path) -> str:
    """A path in the language of DuckDB's JSON functions."""
    return "$" + "".join(
        "[*]" if step == EACH else f"[{step}]" if isinstance(step, int) else '."' + step.replace('"', '\\"') + '"'
        for step in path
    )

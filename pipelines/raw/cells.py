"""Cells of raw files as our types: texts, lists of texts; what each Arrow type becomes.

Belongs here: values. Does not: numbers (``amounts``), times (``times``), which row is rejected for them (``typed``).
"""

import ast
import csv
import json
import math
import re
import unicodedata
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.engine.database import database
from pipelines.lake.schemas import STRINGS
from pipelines.raw.nested import is_list

CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
PARAGRAPHS = "\n"
NUMPY_SCALAR = re.compile(r"\bnp\.\w+\(([^()]*)\)")
NUMPY_LIST = re.compile(r"""^\s*\[\s*(np\.\w+\(|'[^']*'\s+'|"[^"]*"\s+['"])""")
POSTGRES_LIST = re.compile(r"^\s*\{[^{}]*\}\s*$")


class Cells(NamedTuple):
    """A column of a file.

    Attributes:
        array: values, of any Arrow type.
        nested: which texts are JSON of a list or an object; None where none is.
    """

    array: pa.Array
    nested: pa.Array | None = None


def no_cells(n: int) -> Cells:
    """A column that the file does not have."""
    return Cells(pa.nulls(n, pa.string()))


def is_text(kind: pa.DataType) -> bool:
    """Whether values are strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def flat(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array, without dictionaries, extension types and views."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array.type, pa.BaseExtensionType):
        array = pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.string())
    array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    if pa.types.is_string_view(array.type):
        return array.cast(pa.string())
    return array.cast(pa.binary()) if pa.types.is_binary_view(array.type) else array


# --- texts --------------------------------------------------------------------------------------------------------


def texts(cells: Cells, join: bool = False) -> tuple[pa.Array, pa.Array]:
    """Clean text of each cell, null where it is empty; and which cells are lists or objects, which no text can hold.

    Args:
        cells: of any type.
        join: lists of texts become paragraphs instead.
    """
    array = flat(cells.array)
    if is_text(array.type) and cells.nested is None:
        return clean(array.cast(pa.string())), pa.repeat(pa.scalar(False), len(array))
    is_json = is_text(array.type)
    if not (is_json or is_list(array.type) or pa.types.is_struct(array.type) or pa.types.is_map(array.type)):
        return clean(plain_text(array)), pa.repeat(pa.scalar(False), len(array))
    structured = pc.is_valid(array) if cells.nested is None else cells.nested
    found: list[str | None] = []
    unreadable = []
    for value, is_structured in zip(array.to_pylist(), structured.to_pylist(), strict=True):
        inner = _loaded(value) if is_structured and is_json else value
        joined = _paragraphs(inner) if join and isinstance(inner, list) else None
        found.append(joined if is_structured else value)
        unreadable.append(is_structured and joined is None)
    return clean(pa.array(found, pa.string())), pa.array(unreadable, pa.bool_())


def shown(array: pa.Array, at: int) -> str:
    """A cell for a message, whatever it holds."""
    try:
        return str(array[at].as_py())[:100]
    except (OverflowError, ValueError):  # a time that Python does not have, bytes that are no text
        return (
            str(array.slice(at, 1).view(pa.int64())[0])
            if array.type.bit_width == 64
            else "a value that cannot be shown"
        )


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # nested beyond what Python reads
        return None


def _paragraphs(value: list[Any]) -> str | None:
    try:
        return PARAGRAPHS.join(p for p in leaves(value) if p.strip())
    except RecursionError:
        return None


def plain_text(array: pa.Array) -> pa.Array:
    """Values as people write them: 7 and not 7.0, ISO times, UTF-8 of bytes (hexadecimal where they are none)."""
    kind = array.type
    if is_text(kind):
        return array.cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return array.cast(pa.string())
    if pa.types.is_boolean(kind):
        return pc.if_else(array, "true", "false")
    if pa.types.is_date(kind):
        return array.cast(pa.date32(), safe=False).cast(pa.string())
    if pa.types.is_timestamp(kind):
        zoned = array.cast(pa.timestamp("us", "UTC" if kind.tz else None), safe=False)
        text = pc.replace_substring(zoned.cast(pa.timestamp("us")).cast(pa.string()), " ", "T")
        text = pc.replace_substring_regex(text, r"\.0+$", "")
        return pc.binary_join_element_wise(text, "+00:00" if kind.tz else "", "")
    return pa.array([_plain(v) for v in array.to_pylist()], pa.string())


def _plain(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.hex()
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    text = format(value, "f") if type(value).__name__ == "Decimal" else str(value)
    return text.rstrip("0").rstrip(".") if "." in text and type(value).__name__ == "Decimal" else text


def clean(text: pa.Array) -> pa.Array:
    """NFC, without control characters and outer white space; empty becomes null."""
    bytes_of = _bytes(text)
    low, high = (int(bytes_of.min()), int(bytes_of.max())) if len(bytes_of) else (0x21, 0x21)
    if low > 0x20 and high < 0x7F:  # no blank, no control character, nothing beyond ASCII
        empty = pc.equal(text, "")
        return pc.if_else(empty, pa.scalar(None, pa.string()), text) if pc.any(empty).as_py() else text
    if high >= 0x80:
        # unicodedata, because pyarrow 25's utf8_normalize leaves e + combining accent as it is
        rows = [c if c is None or c.isascii() else unicodedata.normalize("NFC", c) for c in text.to_pylist()]
        text = pa.array(rows, pa.string())
    if low < 0x20 or (bytes_of == 0x7F).any():
        text = pc.replace_substring_regex(text, pattern=CONTROL, replacement=" ")
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def lengths(text: pa.Array) -> np.ndarray:
    """Bytes of each text, int32; 0 for null."""
    if not len(text):
        return np.zeros(0, np.int32)
    return np.diff(np.frombuffer(text.buffers()[1], np.int32)[text.offset : text.offset + len(text) + 1])


def _bytes(text: pa.Array) -> np.ndarray:
    """All bytes of a string array, one after the other."""
    if not len(text):
        return np.zeros(0, np.uint8)
    offsets = np.frombuffer(text.buffers()[1], np.int32)[text.offset : text.offset + len(text) + 1]
    data = text.buffers()[2]
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data else np.zeros(0, np.uint8)


def cast_texts(text: pa.Array, kind: str, timezone: str = "UTC") -> pa.Array:
    """Texts as a DuckDB type, null where they are none."""
    with database(timezone) as con:
        con.register("cells", pa.table({"x": text}))
        query = f"SELECT TRY_CAST(x AS {kind}) AS y FROM cells"  # noqa: S608, the kind is one of ours
        return flat(con.sql(query).to_arrow_table()["y"])


# --- lists --------------------------------------------------------------------------------------------------------


def lists(cells: Cells, separator: str) -> pa.Array:
    """Distinct non-empty texts of each cell in order: of lists (nested ones too), literals of lists, split texts."""
    array = flat(cells.array)
    if is_list(array.type) and is_text(array.type.value_type):
        return _clean_lists(array.cast(STRINGS))
    if is_text(array.type):
        text = array.cast(pa.string())
        nested = cells.nested if cells.nested is not None else pa.repeat(pa.scalar(False), len(text))
        literal = pc.or_(nested, pc.fill_null(pc.match_substring_regex(text, r"^\s*[\[({].*[\])}]\s*$"), False))
        if not pc.any(literal).as_py():
            return _clean_lists(pc.split_pattern(text, separator))
        rows = [
            _of_literal(v, separator) if is_literal else None if v is None else v.split(separator)
            for v, is_literal in zip(text.to_pylist(), literal.to_pylist(), strict=True)
        ]
    else:
        rows = [leaves(v) for v in array.to_pylist()]
    return _clean_lists(pa.array(rows, STRINGS))


def _of_literal(text: str, separator: str) -> list[str]:
    """Texts in a JSON or Python literal; the text itself, split, where it is none."""
    if NUMPY_LIST.search(text):  # ['a' 'b'] is ['ab'] in Python; [np.str_('a')] is nothing there
        text = NUMPY_SCALAR.sub(r"\1", re.sub(r"(['\"])\s+(?=['\"])", r"\1, ", text))
    for read in (json.loads, ast.literal_eval):
        try:
            return leaves(read(text))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    if POSTGRES_LIST.match(text):
        return next(csv.reader([text.strip()[1:-1]], escapechar="\\"), [])
    return text.split(separator)


def leaves(value: Any) -> list[str]:
    """Texts of a value: of lists in order, nested ones flattened; an object is one text, its JSON."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple | set):
        inner = value if not isinstance(value, set) else sorted(value, key=str)
        return [leaf for v in inner for leaf in leaves(v)]
    if isinstance(value, dict):
        return [json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [t for t in [_plain(value)] if t is not None]


def _clean_lists(rows: pa.Array) -> pa.Array:
    """Lists without empty texts; a missing list is an empty one."""
    rows = pc.fill_null(rows, pa.scalar([], rows.type)) if rows.null_count else rows
    values, owner = clean(rows.flatten().cast(pa.string())), pc.list_parent_indices(rows)
    keep = pc.is_valid(values)
    owner = np.asarray(owner.filter(keep), np.int64)
    ends = np.searchsorted(owner, np.arange(len(rows) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), values.filter(keep), type=STRINGS)

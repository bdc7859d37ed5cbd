"""JSON: an object a line (or several), arrays, pretty-printed values, a list within an object.

Lines are taken apart by DuckDB, a block at a time; a block's odd lines, and values over several lines, by Python.
Belongs here: objects and the paths in them. Does not: types of values (``cells``, ``times``).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.engine.database import database
from pipelines.raw.cells import Cells, flat
from pipelines.raw.containers import Unpacked
from pipelines.raw.delimited import Rows
from pipelines.raw.lines import Block, Reject, blocks, checked, strings
from pipelines.raw.nested import EACH, Path, json_path, parsed
from pipelines.raw.objects import rows_below
from pipelines.raw.places import RawError
from pipelines.raw.shape import Shape
from pipelines.raw.values import Text, decoder_of_values, values_of

BATCH = 20_000  # values that are taken apart at once
BATCH_CHARACTERS = 64 << 20  # of them


@dataclass(frozen=True)
class _Plan:
    """What is taken out of each object.

    Attributes:
        paths: our column -> where it is.
        each: the list whose elements become rows; empty where an object is a row.
        exact: columns in which a number, a text and a list must be told apart.
    """

    paths: dict[str, Path]
    each: Path
    exact: frozenset[str]


def read_documents(
    stream: IO[bytes] | Unpacked,
    shape: Shape,
    lists: set[str],
    exact: set[str],
    first: int = 1,
    end: int | None = None,
) -> Iterator[Rows]:
    """Rows of a stream of JSON.

    Args:
        stream: at the beginning of a line.
        shape: of the file.
        lists: our columns that hold lists; paths through lists make a row an element in the others.
        exact: our columns in which it matters whether a value is a number, a text or a list.
        first: number of the first line.
        end: bytes to read.
    """
    paths = {c: parsed(p) if p not in shape.header else (p,) for c, p in shape.columns.items()}
    paths, each = with_rows(paths, lists)
    plan = _Plan(paths, each, frozenset(exact))
    if shape.lines:
        for block in blocks(stream, shape.encoding, first, end):
            yield _of_block(block, plan)
        return
    yield from _of_stream(Text(stream, shape.encoding), shape, plan)


def _of_stream(text: Text, shape: Shape, plan: _Plan) -> Iterator[Rows]:
    """Rows of values over several lines; what was read before the file breaks off is good."""
    rejects: list[Reject] = []
    waiting: list[tuple[int, Any]] = []
    torn, rows = None, 0
    try:
        for number, value in values_of(text, shape, rejects):
            for row in [value] if shape.records_at else rows_below(value, shape.records):
                rows += 1  # where one value holds them all, rows are numbered through
                waiting.append((rows if shape.records else number, row))
            if len(waiting) >= BATCH or text.passed >= BATCH_CHARACTERS:
                yield _of_values(waiting, plan, [])
                waiting, text.passed = [], 0
    except RawError as e:
        torn = e
    yield _of_values(waiting, plan, rejects)
    if torn:
        raise torn


def with_rows(paths: dict[str, Path], lists: set[str]) -> tuple[dict[str, Path], Path]:
    """The paths, and the list whose elements become rows: the way to the last ``EACH`` in columns that hold one value.

    Further names of a column (``|``) make no rows; those that lead through another list are left out.

    Raises:
        RawError: there are two.
    """
    through = {c: p[: len(p) - p[::-1].index(EACH)] for c, p in paths.items() if EACH in p and c not in lists}
    found = {p for c, p in through.items() if not c.startswith("|")}
    if len(found) > 1:
        raise RawError("two_lists", f"columns come from {len(found)} lists: {', '.join(map(str, sorted(found)))}")
    each = found.pop() if found else ()
    return {c: p for c, p in paths.items() if not (c.startswith("|") and through.get(c, each) != each)}, each


def _of_block(block: Block, plan: _Plan) -> Rows:
    try:
        block.data.decode("utf-8")
    except UnicodeDecodeError:
        return _line_by_line(block, plan)
    if b"\0" in block.data or block.too_long:
        return _line_by_line(block, plan)
    texts = strings(block.data)
    numbers = pa.array(np.arange(block.first, block.first + len(texts)))
    if not plan.each and not any(EACH in p for p in plan.paths.values()):
        columns = _flat_objects(texts, plan)
        if columns is not None:
            return Rows(numbers, columns)
    with database() as con:
        con.register("lines", pa.table({"j": texts}))
        query = "SELECT CASE WHEN json_valid(j) THEN json_type(j) = 'OBJECT' ELSE false END AS ok FROM lines"
        good = flat(con.sql(query).to_arrow_table()["ok"])
    if pc.all(good).as_py():
        return _taken_apart(numbers, texts, plan, [])
    bad = texts.filter(pc.invert(good))
    if len(bad) * 10 > len(texts) or len(texts) < BATCH:
        return _line_by_line(block, plan)
    odd_at = np.flatnonzero(~np.asarray(good))
    odd = [(block.first + int(i), t) for i, t in zip(odd_at, bad.to_pylist(), strict=True)]
    values, rejects = _of_lines(odd)
    numbers = pa.concat_arrays([numbers.filter(good), pa.array([n for n, _ in values], pa.int64())])
    extra = pa.array([_dumped(v) for _, v in values], pa.string())
    order = pa.array(np.argsort(np.asarray(numbers), kind="stable"))
    return _taken_apart(numbers.take(order), pa.concat_arrays([texts.filter(good), extra]).take(order), plan, rejects)


def _flat_objects(texts: pa.Array, plan: _Plan) -> dict[str, Cells] | None:
    """Cells of lines that are one object each, in a single pass; None where one is something else.

    Columns that may hold a list, an object or a number that looks like a whole one are looked at again.
    """
    if not pc.all(pc.starts_with(texts, "{")).as_py():
        return None
    paths = ", ".join(_quoted(p) for p in plan.paths.values())
    cells = ", ".join(f"x[{i}] AS t{i}" for i in range(1, len(plan.paths) + 1))
    inside = f"SELECT TRY(json_extract_string(j, [{paths}])) AS x FROM lines"  # noqa: S608
    with database() as con:
        con.register("lines", pa.table({"j": texts}))
        table = con.sql(f"SELECT x IS NULL AS bad, {cells} FROM ({inside})").to_arrow_table()  # noqa: S608
    if pc.any(table["bad"]).as_py():
        return None
    columns = {c: Cells(flat(table[f"t{i}"]).cast(pa.string())) for i, c in enumerate(plan.paths, 1)}
    odd = {c: plan.paths[c] for c in plan.exact & plan.paths.keys() if _is_odd(columns[c].array)}
    if odd:
        again = _taken_apart(pa.array(np.arange(len(texts))), texts, _Plan(odd, (), frozenset()), [])
        columns |= again.columns
    return columns


def _is_odd(text: pa.Array) -> bool:
    """Whether a text may be JSON of a list or an object, or a number such as 7.0."""
    looks = (pc.starts_with(text, "["), pc.starts_with(text, "{"), pc.ends_with(text, ".0"))
    return any(pc.any(found).as_py() for found in looks)


def _line_by_line(block: Block, plan: _Plan) -> Rows:
    lines, rejects = checked(block)
    values, bad = _of_lines(lines)
    return _of_values(values, plan, rejects + bad)


def _of_lines(lines: list[tuple[int, str]]) -> tuple[list[tuple[int, Any]], list[Reject]]:
    """(line, object) of each line, which may hold several, and the lines that hold something else."""
    found: list[tuple[int, Any]] = []
    rejects: list[Reject] = []
    decoder = decoder_of_values()
    for number, text in lines:
        at, text = 0, text.strip()
        try:
            while at < len(text):
                value, at = decoder.raw_decode(text, at)
                while at < len(text) and text[at] in " \t\r,":
                    at += 1
                if not isinstance(value, dict):
                    raise ValueError(f"expected an object, found {type(value).__name__}")
                found.append((number, value))
        except (ValueError, RecursionError) as e:
            rejects.append(Reject(number, "bad_json", str(e)[:200]))
    return found, rejects


def _of_values(values: list[tuple[int, Any]], plan: _Plan, rejects: list[Reject]) -> Rows:
    rows = [(n, v) for n, v in values if isinstance(v, dict)]
    others = [(n, type(v).__name__) for n, v in values if not isinstance(v, dict)]
    bad = [Reject(n, "bad_json", f"expected an object, found {found}") for n, found in others]
    numbers = pa.array([n for n, _ in rows], pa.int64())
    return _taken_apart(numbers, pa.array([_dumped(v) for _, v in rows], pa.string()), plan, rejects + bad)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def _taken_apart(numbers: pa.Array, objects: pa.Array, plan: _Plan, rejects: list[Reject]) -> Rows:
    """Values at each path of JSON objects, by DuckDB; a row an element of the list at ``each``, where there is one."""
    paths, each = plan.paths, plan.each
    with database() as con:
        con.register("objects", pa.table({"i": np.arange(len(numbers)), "n": numbers, "j": objects}))
        table = con.sql(_query(paths, each)).to_arrow_table()
    columns = {c: _cells(table, i) for i, c in enumerate(paths)}
    if not each:
        return Rows(flat(table["n"]), columns, rejects)
    empty = np.ones(len(numbers), bool)
    empty[np.asarray(table["i"], np.int64)] = False
    detail = f"no element in {'.'.join(map(str, each[:-1]))}"
    rejects = rejects + [Reject(n, "empty_list", detail) for n in numbers.filter(pa.array(empty)).to_pylist()]
    return Rows(flat(table["n"]), columns, rejects, flat(table["k"]).cast(pa.int64()))


def _query(paths: dict[str, Path], each: Path) -> str:
    """SQL over ``objects`` (i, n, j): i, n, k, and of each path the JSON (r), its text (t), whether it has a structure.

    Paths of one side (the object ``j``, the element ``e``) are found in one pass, unless they lead through lists.
    """
    below = {c: ("e", p[len(each) :]) if each and p[: len(each)] == each else ("j", p) for c, p in paths.items()}
    at: dict[str, str] = {}
    found: dict[str, list[str]] = {"j": [], "e": []}
    for side, values in found.items():
        mine = [c for c, (s, p) in below.items() if s == side and EACH not in p]
        if mine:
            values.append(f"json_extract({side}, [{', '.join(_quoted(below[c][1]) for c in mine)}]) AS {side}s")
        at |= {c: f"{side}s[{i}]" for i, c in enumerate(mine, 1)}
    for i, c in enumerate(c for c, (_, p) in below.items() if EACH in p):
        found[below[c][0]].append(f"to_json(json_extract({below[c][0]}, {_quoted(below[c][1])})) AS w{i}")
        at[c] = f"w{i}"
    rows = f"SELECT {', '.join(['i', 'n', '0 AS k', *found['j']])} FROM objects"  # noqa: S608
    if each:  # what is outside of the list is taken out first, so that no element carries its whole object along
        lists = f"SELECT {', '.join(['i', 'n', f'json_extract(j, {_quoted(each)}) AS l', *found['j']])} FROM objects"  # noqa: S608
        split = f"SELECT * EXCLUDE l, generate_subscripts(l, 1) - 1 AS k, unnest(l) AS e FROM ({lists})"  # noqa: S608
        rows = f"SELECT {', '.join(['* EXCLUDE e', *found['e']])} FROM ({split})"  # noqa: S608
    cells = [
        f"{at[c]} AS r{i}, {at[c]}->>'$' AS t{i}, left({at[c]}, 1) IN ('[', '{{') AS s{i}" for i, c in enumerate(paths)
    ]
    return f"SELECT i, n, k, {', '.join(cells)} FROM ({rows})"  # noqa: S608


def _cells(table: pa.Table, i: int) -> Cells:
    """Text of a JSON value; a number 7.0 is 7, an integer of any length keeps its digits."""
    raw, text, nested = (flat(table[f"{name}{i}"]) for name in "rts")
    raw, text = raw.cast(pa.string()), text.cast(pa.string())
    whole = pc.match_substring_regex(raw, r"^-?\d+\.0+$")
    if pc.any(whole).as_py():
        text = pc.if_else(pc.fill_null(whole, False), pc.replace_substring_regex(text, r"\.0+$", ""), text)
    nested = pc.fill_null(nested, False)
    return Cells(text, nested if pc.any(nested).as_py() else None)


def _quoted(path: Path) -> str:
    return "'" + json_path(path).replace("'", "''") + "'"

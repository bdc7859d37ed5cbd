"""Folders of table formats that keep a log of their own: the live files of a Delta table; Iceberg and Hudi are refused.

A deleted row's file stays in such a folder, so reading all of it brings back what was deleted.
Belongs here: which files are live. Does not: reading them.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.raw.places import RawError, RawStore

DELTA_LOG, HUDI, ICEBERG = "_delta_log", ".hoodie", "metadata"
UNREADABLE = {"deletionVectors", "columnMapping", "v2Checkpoint"}


def live_files(store: RawStore, names: Iterable[str]) -> list[str]:
    """Data files among all files below a folder, without what a table's log has removed.

    Raises:
        RawError: a table of a format that is not read, with what to do.
    """
    names = sorted(names)
    roots = _roots(names)
    for root, kind in roots.items():
        if kind != "Delta":
            what = f"'{root}' is a table of {kind}, whose folder holds deleted rows too"
            raise RawError("table_format", f"{what}; write its current rows to a folder of Parquet files")
    visible = [n for n in names if not _hidden(n)]
    for root in roots:
        live = _live_in_delta(store, root, names)
        visible = [n for n in visible if not _below(n, root) or n in live]
    return visible


def _roots(names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        if DELTA_LOG in parts:
            found["/".join(parts[: parts.index(DELTA_LOG)])] = "Delta"
        elif HUDI in parts:
            found["/".join(parts[: parts.index(HUDI)])] = "Hudi"
        elif len(parts) > 1 and parts[-2] == ICEBERG and name.endswith(".metadata.json"):
            found["/".join(parts[:-2])] = "Iceberg"
    return found


def _hidden(name: str) -> bool:
    """Markers, checksums and files of tools, which start with a point or an underscore; ``_a=b`` is a partition."""
    return any(p.startswith((".", "_")) and "=" not in p for p in name.split("/"))


def _below(name: str, root: str) -> bool:
    return not root or name.startswith(f"{root}/")


def _live_in_delta(store: RawStore, root: str, names: list[str]) -> set[str]:
    """Files that the log has added and not removed: its last checkpoint, then each commit after it."""
    log = f"{root}/{DELTA_LOG}".lstrip("/")

    def broken(what: str) -> RawError:
        return RawError("table_format", f"the Delta table '{root}' {what}; write its current rows to Parquet files")

    commits = {n.rsplit("/", 1)[1].split(".")[0]: n for n in names if n.startswith(f"{log}/") and n.endswith(".json")}
    checkpoints = [n for n in names if n.startswith(f"{log}/") and ".checkpoint." in n and n.endswith(".parquet")]
    live: set[str] = set()
    done = -1
    if checkpoints:
        number, *kind = checkpoints[-1].rsplit("/", 1)[1].split(".")
        if kind != ["checkpoint", "parquet"]:
            raise broken("has a checkpoint of several parts")
        done = int(number)
    later = sorted(int(v) for v in commits if v.isdigit() and int(v) > done)
    if later != list(range(done + 1, done + 1 + len(later))):
        raise broken(f"lacks a commit between {done + 1} and {later[-1]}")
    try:
        for action in _actions(store, checkpoints[-1:], [commits[f"{v:020}"] for v in later]):
            _apply(action, root, live)
    except (ValueError, KeyError, AttributeError, pa.ArrowException) as e:
        if isinstance(e, RawError):
            raise
        raise broken(f"has a log that cannot be read ({type(e).__name__}: {str(e)[:100]})") from e
    gone = sorted(live - set(names))
    if gone:
        raise broken(f"names {len(gone)} files that are not in it, such as {gone[0]}")
    return live


def _actions(store: RawStore, checkpoints: list[str], commits: list[str]) -> Iterator[dict[str, Any]]:
    """What the log says, in order."""
    for name in checkpoints:
        with store.open(name) as f:
            yield from pq.read_table(f).to_pylist()
    for name in commits:
        with store.open(name) as f:
            yield from (json.loads(line) for line in f.read().decode("utf-8").splitlines() if line.strip())


def _apply(action: dict[str, Any], root: str, live: set[str]) -> None:
    protocol = action.get("protocol") or {}
    needed = UNREADABLE & set(protocol.get("readerFeatures") or ())
    add, remove = action.get("add") or {}, action.get("remove") or {}
    if needed or add.get("deletionVector"):
        what = ", ".join(sorted(needed)) or "deletion vectors"
        raise RawError("table_format", f"the Delta table '{root}' uses {what}; write its current rows to Parquet files")
    if remove.get("path"):
        live.discard(f"{root}/{unquote(remove['path'])}".lstrip("/"))
    if add.get("path"):
        live.add(f"{root}/{unquote(add['path'])}".lstrip("/"))

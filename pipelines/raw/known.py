"""Which parts of raw files have been read: a file whose size, time and inode are unchanged is not opened again.

A longer version of a log is read from where it ended, where its head is unchanged. Only a cache: losing it costs
time, and ``first_seen``. Belongs here: what is new. Does not: reading it (``pieces``), what the rows mean together.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pipelines.config import Config, digest_of
from pipelines.lake.folders import scratch
from pipelines.raw.columns import RAW_COLUMNS
from pipelines.raw.dialect import split_line
from pipelines.raw.lines import ends_of
from pipelines.raw.pieces import Account, Part, Reader, is_whole, read_parts
from pipelines.raw.places import DataError, RawError, RawStore, file_day
from pipelines.raw.reading import look
from pipelines.raw.shape import Shape
from pipelines.raw.table_logs import live_files
from pipelines.sections import Source

log = logging.getLogger(__name__)

VERSION = 6  # raise it when the same file should give other pieces
STEP_BYTES = 1 << 23
RANGE_BYTES = 256 << 20  # a bigger plain text file is read in ranges, side by side
PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".svg", ".ico")
SOUNDS = (".mp3", ".wav", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aiff")
CLIPS = (".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm")
LEFT_BEHIND = re.compile(r"(~|\.bak|\.tmp|\.temp|\.part|\.partial|\.crdownload|\.download|\.swp|\.orig)$|^#.*#$|^Thumbs\.db$|^desktop\.ini$", re.I)  # noqa: E501 # fmt: skip
ENDS_BYTES = 1 << 16  # of the head and of the end of a part, to tell that a log only grew


@dataclass(frozen=True)
class Piece:
    """The typed content of a part of a raw file.

    Attributes:
        source: file, relative to the raw folder.
        start: byte where the part begins.
        folder: where ``rows.parquet`` and ``rejects.parquet`` are.
        file_day: date in the file's name.
        first_seen: day of the night that saw the file first.
        account: what the piece says of itself.
    """

    source: str
    start: int
    folder: Path
    file_day: date | None
    first_seen: date
    account: Account

    @property
    def rows(self) -> Path:
        """Typed rows, see ``typed.schema_of``, with ``source``."""
        return self.folder / "rows.parquet"

    @property
    def rejects(self) -> Path:
        """Rejected rows with the day they are counted on, null where that is unknown."""
        return self.folder / "rejects.parquet"

    @property
    def shape(self) -> Shape | None:
        """What the file is; None where it was refused before that was known."""
        return None if self.account.shape is None else shape_from(self.account.shape)


def copies(names: Iterable[str]) -> list[str]:
    """Files that editors, browsers and desktops leave behind: backups, unfinished downloads, lists of thumbnails."""
    return [n for n in names if LEFT_BEHIND.search(n.rsplit("/", 1)[-1])]


def has_column(piece: Piece, column: str) -> bool:
    """Whether a piece has one of our columns; of JSON, whose objects need not have every key, whether any row had it.

    A file without a row lacks nothing.
    """
    shape, account = piece.shape, piece.account
    if shape is None or not shape.has(column):
        return False
    if shape.format != "json" or not (account.rows or account.rejects):
        return True
    return bool(account.present.get(column)) or shape.columns.get(column) in shape.header


def shape_from(stored: dict[str, Any]) -> Shape:
    """A shape as JSON holds it."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    values["others"] = {c: tuple(names) for c, names in stored["others"].items()}
    return Shape(**values)


def media_files(names: Iterable[str]) -> list[str]:
    """Files that are pictures, sounds or clips by their name, which rows refer to and nothing reads as a table."""
    return [n for n in names if Path(n).suffix.lower() in (*PICTURES, *SOUNDS, *CLIPS)]


def unread(store: RawStore, read: Iterable[str]) -> list[str]:
    """Files below the raw folder that are neither read, nor pictures, sounds or clips, nor hidden.

    Args:
        store: raw folder, all of which is listed.
        read: files that are read.
    """
    every, known = store.below("."), set(read)
    known.update(media_files(every))
    return [n for n in every if n not in known and not any(p.startswith((".", "_")) for p in n.split("/"))]


class Known:
    """What was read of one kind of raw file.

    Args:
        kind: interactions, items, user_content, ...
        config: of the night.
    """

    def __init__(self, kind: str, config: Config):
        self.kind, self.config, self.source = kind, config, source_of(config, kind)
        self.store = RawStore(*config.raw_place)
        self.cache = config.paths.data / "cache" / "pieces" / kind
        self.path = self.cache / ".known.json"
        self.files = _remembered(self.path)

    def names(self) -> list[str]:
        """Data files, in order of name.

        Raises:
            DataError: a table of a format that is not read.
        """
        try:
            found = live_files(self.store, self.store.below(self.source.path))
        except RawError as e:
            raise DataError([e.detail]) from e
        unwritable = [n for n in found if n != n.encode("utf-8", "replace").decode()]
        if unwritable:
            raise DataError([f"{self.source.path}: the file name {n!r} is not UTF-8; rename it" for n in unwritable])
        others = {*media_files(found), *copies(found)}
        return [n for n in found if n not in others]

    def pieces(self, day: date) -> list[Piece]:
        """Pieces of all raw files of the kind, see ``pieces_of``."""
        return pieces_of([self], day)[self.kind]

    def _plan(self, day: date) -> dict[str, dict[str, Any]]:
        """What is known of each data file, with the parts that it is read in."""
        settings = self._settings()
        return {name: self._entry(name, settings, day) for name in self.names()}

    def _unread(self, plan: dict[str, dict[str, Any]]) -> list[tuple[Reader, Part, Path]]:
        reader = Reader(self.kind, self.config.raw_place, self.source, self.config.timezone)
        every = [(name, p, self.cache / p["key"]) for name, e in plan.items() for p in e["parts"]]
        sizes = {name: int(e["stamp"][0]) for name, e in plan.items()}
        for *_, folder in every:
            if folder.is_dir() and not is_whole(folder):
                log.warning("%s is damaged and read again", folder)
                shutil.rmtree(folder)
        return [(reader, _to_read(name, p, sizes[name]), folder) for name, p, folder in every if not folder.is_dir()]

    def _read(self, plan: dict[str, dict[str, Any]]) -> list[Piece]:
        """Pieces of a plan of which every part has been read; what else was kept is forgotten."""
        self._remember(plan)
        every = [(name, e, p, self.cache / p["key"]) for name, e in plan.items() for p in e["parts"]]
        self._forget_all_but({folder for *_, folder in every})
        return [
            Piece(name, p["start"], folder, file_day(name), date.fromisoformat(e["first_seen"]), _account(folder))
            for name, e, p, folder in every
        ]

    def forget_changed(self) -> list[str]:
        """Hash every file that was read and forget those that have other bytes now, so that they are read again."""
        changed = [
            name
            for name, entry in self.files.items()
            if list(self.store.stamp(name)) == entry["stamp"]
            and self.content(name, entry["parts"]) != self._content_before(entry)
        ]
        if changed:
            for name in changed:
                for p in self.files[name]["parts"]:
                    shutil.rmtree(self.cache / p["key"], ignore_errors=True)
        return changed

    def _settings(self) -> str:
        columns = {c: str(kind) for c, kind in RAW_COLUMNS[self.kind].items()}
        return digest_of([VERSION, self.kind, columns, self.source.model_dump(mode="json"), self.config.timezone])

    def _entry(self, name: str, settings: str, day: date) -> dict[str, Any]:
        """What is known of a file, with the parts that have to be read where it is new or has changed."""
        old = self.files.get(name)
        stamp, parts = list(self.store.stamp(name)), list[dict[str, Any]]()
        same = old is not None and old["stamp"] == stamp
        if old and old["settings"] == settings:
            parts = old["parts"] if same else self._same_or_longer(name, old, stamp)
        first_seen = old["first_seen"] if old and (same or parts) else day.isoformat()
        parts = parts or self._parts(name, settings, stamp)
        return {"stamp": stamp, "settings": settings, "first_seen": first_seen, "parts": parts}

    def _parts(self, name: str, settings: str, stamp: list[str]) -> list[dict[str, Any]]:
        """The parts of a file that is read from its beginning."""
        shape, cuts = None, [(0, 1)]
        if int(stamp[0]) > RANGE_BYTES:
            shape = self._look(name)
            if shape and shape.growing and not self.source.fill_down:
                cuts = _ranges(self.store, name, int(stamp[0]), shape)
        ends = [at for at, _ in cuts[1:]] + [None]
        return [
            _part(start, end, first, shape, digest_of([settings, name, *stamp, start]))
            for (start, first), end in zip(cuts, ends, strict=True)
        ]

    def _same_or_longer(self, name: str, old: dict[str, Any], stamp: list[str]) -> list[dict[str, Any]]:
        """Parts of a file of another time or size whose old content is all there; none where it is not."""
        size, before = int(stamp[0]), int(old["stamp"][0])
        last = _account_or_none(self.cache / old["parts"][-1]["key"])
        if last is None or size < before or not old.get("ends"):
            return []
        if size == before:
            return old["parts"] if self.content(name, old["parts"]) == self._content_before(old) else []
        shape = shape_from(last.shape) if last.shape else None
        if not (shape and shape.growing and last.rows and last.ends_whole) or self.source.fill_down:
            return []
        if _ends(self.store, name, before) != old["ends"] or self._look(name) != shape:
            return []
        start = old["parts"][-1]
        first = start["first"] + last.lines
        parts = [*old["parts"][:-1], {**start, "end": before}]
        key = digest_of([old["settings"], name, *stamp, before])
        log.info("%s: %s grew by %d bytes", self.kind, name, size - before)
        return [*parts, _part(before, None, first, shape, key) | {"near": last.near}]

    def _look(self, name: str) -> Shape | None:
        """What a file is; None where it is refused, of which the worker that reads it says why."""
        try:
            return look(self.store, name, self.kind, self.source)
        except Exception as e:
            log.debug("%s: %s", name, e)
            return None

    def content(self, name: str, parts: list[dict[str, Any]]) -> list[str]:
        """sha256 of each part of a file as it is now."""
        found: list[str] = []
        try:
            f = self.store.open(name)
        except RawError:
            return found
        with f:
            for p in parts:
                f.seek(p["start"])
                left = None if p["end"] is None else p["end"] - p["start"]
                sha = hashlib.sha256()
                while data := f.read(1 << 23 if left is None else min(1 << 23, left)):
                    left = None if left is None else left - len(data)
                    sha.update(data)
                found.append(sha.hexdigest())
        return found

    def _content_before(self, old: dict[str, Any]) -> list[str]:
        accounts = [_account_or_none(self.cache / p["key"]) for p in old["parts"]]
        return [a.sha256 if a else "" for a in accounts]

    def _remember(self, entries: dict[str, dict[str, Any]]) -> None:
        for name, entry in entries.items():
            old = self.files.get(name)
            if old and old["stamp"] == entry["stamp"] and old.get("ends"):
                entry["ends"] = old["ends"]
            else:
                entry["ends"] = _ends(self.store, name, int(entry["stamp"][0]))
        if entries != self.files:
            self.files = entries
            with scratch(self.cache, "known") as staging:
                (staging / "known.json").write_text(json.dumps(entries))
                (staging / "known.json").replace(self.path)

    def _forget_all_but(self, needed: set[Path]) -> None:
        """Remove pieces of files that are gone or have changed: what a user deletes is not kept here."""
        for folder in self.cache.glob("[!.]*"):
            if folder not in needed:
                shutil.rmtree(folder, ignore_errors=True)


def pieces_of(kinds: Sequence[Known], day: date) -> dict[str, list[Piece]]:
    """Kind -> pieces of all its raw files, in order of name and part; what is new of all kinds is read at once.

    Args:
        kinds: of one configuration.
        day: of the night, for files that are seen for the first time.
    """
    plans = {k.kind: k._plan(day) for k in kinds}
    todo = [part for k in kinds for part in k._unread(plans[k.kind])]
    if todo:
        read_parts(todo, kinds[0].config)
    return {k.kind: k._read(plans[k.kind]) for k in kinds}


def source_of(config: Config, kind: str) -> Source:
    """Settings of one kind of raw file."""
    found: Source = getattr(config, kind)
    return found


def _part(start: int, end: int | None, first: int, shape: Shape | None, key: str) -> dict[str, Any]:
    return {"start": start, "end": end, "first": first, "shape": asdict(shape) if shape else None, "key": key}


def _to_read(name: str, part: dict[str, Any], size: int) -> Part:
    shape = shape_from(part["shape"]) if part["shape"] else None
    near = date.fromisoformat(part["near"]) if part.get("near") else None
    return Part(name, part["start"], part["end"], part["first"], shape, near, size)


def _account(folder: Path) -> Account:
    return Account(**json.loads((folder / "account.json").read_text()))


def _account_or_none(folder: Path) -> Account | None:
    return _account(folder) if is_whole(folder) else None


def _remembered(path: Path) -> dict[str, dict[str, Any]]:
    """What is known of each file; nothing where that is damaged or of another version."""
    try:
        found = json.loads(path.read_text())
        return found if all({"stamp", "settings", "first_seen", "parts"} <= e.keys() for e in found.values()) else {}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}


def _ends(store: RawStore, name: str, size: int) -> str:
    """Digest of the first bytes of a file and of those before ``size``."""
    try:
        with store.open(name) as f:
            head = f.read(min(ENDS_BYTES, size))
            f.seek(max(0, size - ENDS_BYTES))
            tail = f.read(min(ENDS_BYTES, size))
    except RawError:
        return ""
    return hashlib.sha256(head + tail).hexdigest()


def _ranges(store: RawStore, name: str, size: int, shape: Shape) -> list[tuple[int, int]]:
    """(byte, line number) where each range of a big file begins: behind a newline that ends a record."""
    cuts, line, quotes, at = [(0, 1)], 1, 0, 0
    with store.open(name) as f:
        while data := f.read(STEP_BYTES):
            if at + len(data) >= cuts[-1][0] + RANGE_BYTES and size - at - len(data) > RANGE_BYTES // 4:
                end = _end_of_record(data, quotes, shape)
                if end:
                    cuts.append((at + end, line + data[:end].count(b"\n")))
            quotes += data.count(b'"')
            line += data.count(b"\n")
            at += len(data)
    return cuts


def _end_of_record(data: bytes, quotes: int, shape: Shape) -> int:
    """Where a record ends among the last lines of a block; 0 where none does.

    Between two lines that are a record each; else where the quotes so far are even, which a stray one makes wrong.
    """
    ends = [e for e in ends_of(data)[-100:].tolist() if data[e - 1 : e] == b"\n"]
    if shape.format == "json" or not shape.quoting:
        return ends[0] if ends else 0
    for start, end, following in zip(ends, ends[1:], ends[2:], strict=False):
        if _is_record(data[start:end], shape) and _is_record(data[end:following], shape):
            return end
    return next((e for e in ends if (quotes + data[:e].count(b'"')) % 2 == 0), 0)


def _is_record(line: bytes, shape: Shape) -> bool:
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    whole = text.count('"') % 2 == 0
    return whole and len(split_line(text, shape.delimiter, True, shape.escape)) == len(shape.header)

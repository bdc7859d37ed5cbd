"""A look at raw data without a night: what each file is, what of it can be used, what a night would do and cost.

A sample of every file (of many files, of some of each kind), in under a minute. Belongs here: judging samples. Does
not: taking them (``raw.sample``), printing the outcome (``assets.printed``), writing a configuration (``propose``).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from encoders.modalities import KINDS as MODALITY_KINDS
from encoders.modalities import MODALITIES
from pipelines.config import Config
from pipelines.lake.guards import SPELLINGS
from pipelines.raw.account import HARMLESS
from pipelines.raw.columns import RAW_COLUMNS, REQUIRED
from pipelines.raw.known import Known, unread
from pipelines.raw.media import MAX_FILE_BYTES
from pipelines.raw.places import DataError, RawError, RawStore
from pipelines.raw.sample import Sampled, sampled, spread
from pipelines.sections import SOURCES, Source

TRUTHS = {"true", "false", "0", "1", "yes", "no"}
REASONS = 3  # shown of a file
REPEATED = 0.05  # share of a catalogue's rows that repeat an item before it is said
REFERENCES = 300  # of a modality, whose files are looked for
PER_SECOND = {"text": 100.0, "image": 40.0, "audio": 15.0, "video": 1.0}  # default encoders on two cores, README
BYTES_OF_EVENT, BYTES_OF_ITEM = 30, 6_000  # in the lake, of a night with default settings


@dataclass
class FileReport:
    """What was found of one file.

    Attributes:
        source: the file.
        kind: of raw files, see ``sections.SOURCES``.
        format: csv, json or parquet; empty where it is refused.
        said: encoding, delimiter and whatever else is not plain.
        rows: by estimate.
        looked_at: rows of the sample.
        usable: share of them that are not rejected.
        reasons: (count, reason, position, detail) of the most frequent rejects.
        notes: fields that became null, as text.
        lacks: mapped or required columns of ours that it does not have.
        unused: its columns that nothing reads.
    """

    source: str
    kind: str
    format: str = ""
    said: list[str] = field(default_factory=list)
    rows: int = 0
    looked_at: int = 0
    usable: float = 0.0
    reasons: list[tuple[int, str, int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


@dataclass
class Survey:
    """What was found of all data.

    Attributes:
        files: reports of the files that were looked at.
        many: kind -> number of files, of which some were looked at.
        columns: kind -> our column -> share of looked-at rows that have it.
        events: event -> (share of events, weight, whether that weight is set).
        days: ISO day -> share of looked-at events.
        known_items: share of events whose item is in the catalogue; None where there is none of either.
        spellings: how ids would have to be spelled -> that share.
        modalities: modality -> share of items with it; of files those that are there.
        unread: files below the raw folder that nothing reads.
        to_encode: modality -> contents, by estimate.
        minutes: to encode them on two cores.
        disk_mb: of the lake after the first night.
        remarks: what stops no night and is seldom meant.
        problems: what would stop a night, or lose much.
    """

    files: list[FileReport] = field(default_factory=list)
    many: dict[str, int] = field(default_factory=dict)
    columns: dict[str, dict[str, float]] = field(default_factory=dict)
    events: dict[str, tuple[float, float, bool]] = field(default_factory=dict)
    days: dict[str, float] = field(default_factory=dict)
    known_items: float | None = None
    spellings: dict[str, float] = field(default_factory=dict)
    modalities: dict[str, float] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    to_encode: dict[str, int] = field(default_factory=dict)
    minutes: float = 0.0
    disk_mb: float = 0.0
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)


def survey(config: Config) -> Survey:
    """Look at all raw data of a configuration."""
    found, store = Survey(), RawStore(*config.raw_place)
    samples: dict[str, list[Sampled]] = {}
    names: set[str] = set()
    for kind in SOURCES:
        try:
            mine = Known(kind, config).names()
        except DataError as e:
            found.problems += e.problems
            mine = []
        names.update(mine)
        found.many[kind] = len(mine)
        source = getattr(config, kind)
        samples[kind] = [sampled(store, n, kind, source, config.timezone) for n in spread(mine)]
        found.files += [_report(config, kind, s) for s in samples[kind]]
        found.columns[kind] = _filled(kind, samples[kind])
        found.problems += _problems(config, kind, samples[kind])
    _judge_events(config, found, samples)
    _judge_items(config, found, samples, store)
    _count_work(config, found, samples)
    found.unread = unread(store, names)
    return found


# --- files ------------------------------------------------------------------------------------------------------


def _report(config: Config, kind: str, s: Sampled) -> FileReport:
    report = FileReport(s.source, kind, rows=s.total, looked_at=s.looked_at)
    if s.refused:
        report.reasons = [(1, s.refused[0], 0, s.refused[1])]
    if s.shape is None or s.refused:
        return report
    source = getattr(config, kind)
    report.format, report.said = s.shape.format, list(s.shape.said)
    report.usable = s.rows.num_rows / s.looked_at if s.looked_at else 1.0
    counted = Counter(r.reason for r in s.rejects)
    first = {r.reason: r for r in reversed(s.rejects)}
    report.reasons = [(n, why, first[why].position, first[why].detail) for why, n in counted.most_common(REASONS)]
    report.notes = [f"{c}: {n} cells become null, line {p} holds '{v}'" for (c, _), (n, p, v) in s.notes.items()]
    wanted = dict.fromkeys([*REQUIRED[kind], *source.columns])
    report.lacks = [c for c in wanted if not s.shape.has(c) and c not in source.defaults]
    used = {str(p).split(".")[0].split("[")[0] for p in s.shape.columns.values()} | set(s.shape.columns.values())
    report.unused = [h for h in s.shape.header if h and h not in used and h not in source.fill_down.values()]
    return report


def _filled(kind: str, samples: list[Sampled]) -> dict[str, float]:
    rows = sum(s.rows.num_rows for s in samples)
    if not rows:
        return {}
    return {c: sum(_full(s.rows[c]) for s in samples) / rows for c in RAW_COLUMNS[kind]}


def _full(column: pa.ChunkedArray) -> int:
    if pa.types.is_list(column.type):
        return pc.sum(pc.greater(pc.list_value_length(column), 0)).as_py() or 0
    return len(column) - column.null_count


def _problems(config: Config, kind: str, samples: list[Sampled]) -> list[str]:
    """Columns that no file has, files that are refused, rows that are lost."""
    source, problems = getattr(config, kind), []
    read = [s for s in samples if s.shape is not None]
    for column in dict.fromkeys([*source.columns, *REQUIRED[kind]]):
        if read and column not in source.defaults and not any(_has(s, column) for s in read):
            example = read[0]
            names = ", ".join(example.shape.header[:12]) if example.shape else ""
            wanted = " or ".join(f"'{n}'" for n in source.names_of(column))
            problems.append(f"{kind}.columns.{column} = {wanted}: no file has it; {example.source} has {names}")
    problems += _unreadable(kind, source, samples)
    problems += [f"{s.source}: refused, {s.refused[0]}: {s.refused[1]}" for s in samples if s.refused]
    looked, lost = 0, 0
    for s in samples:
        looked += s.looked_at
        lost += sum(r.reason not in HARMLESS for r in s.rejects)
    if looked and lost > config.guards.lost_rows * looked:
        problems.append(f"{kind}: {lost / looked:.0%} of the rows looked at cannot be used; a night stops")
    return problems


def _unreadable(kind: str, source: Source, samples: list[Sampled]) -> list[str]:
    """Mapped columns of which not a single cell can be read, see ``raw.judge``."""
    problems = []
    for column in source.columns:
        notes = [(s, *n) for s in samples for (c, _), n in s.notes.items() if c == column]
        if notes and not any(_full(s.rows[column]) for s in samples):
            s, _, position, value = notes[0]
            what = f"{kind}.columns.{column}: none of its {sum(n[1] for n in notes)} cells looked at can be read"
            problems.append(f"{what}; {s.source} line {position} holds '{value}'")
    return problems


def _has(s: Sampled, column: str) -> bool:
    if s.shape is None or not s.shape.has(column):
        return False
    return s.shape.format != "json" or bool(_full(s.rows[column])) or s.shape.columns.get(column) in s.shape.header


# --- what the rows mean -----------------------------------------------------------------------------------------


def _column(samples: list[Sampled], name: str) -> pa.ChunkedArray | None:
    parts = [s.rows[name] for s in samples if s.rows.num_rows]
    return pa.chunked_array([c for p in parts for c in p.chunks]) if parts else None


def _judge_events(config: Config, found: Survey, samples: dict[str, list[Sampled]]) -> None:
    events, days = (_column(samples["interactions"], c) for c in ("event", "_day"))
    if events is None or days is None:
        return
    weights, n = config.recommend.event_weights, len(events)
    for entry in sorted(events.value_counts().to_pylist(), key=lambda e: -e["counts"]):
        name = entry["values"]
        found.events[name] = (entry["counts"] / n, weights.get(name, 1.0), name in weights)
    counted = {e["values"]: e["counts"] for e in days.value_counts().to_pylist()}
    found.days = {d.isoformat(): counted[d] / n for d in sorted(counted)}
    if found.events.keys() <= TRUTHS:
        names = ", ".join(found.events)
        found.remarks.append(f"events are named {names}: map the column as value, or another one as event")
    early = sum(c for d, c in counted.items() if d < config.start_date)
    if early == n:
        first = next(s.source for s in samples["interactions"] if s.rows.num_rows)
        last = max(counted)
        found.problems.append(
            f"{first}: all events lie before start_date {config.start_date}: from {min(counted)} to {last}"
        )


def _judge_items(config: Config, found: Survey, samples: dict[str, list[Sampled]], store: RawStore) -> None:
    events, items = (_column(samples[k], "item_id") for k in ("interactions", "items"))
    if items is not None:
        found.modalities = dict(_modalities(samples["items"], store))
        found.remarks += [r for s in samples["items"] for r in _repeated(s)]
    if events is None or items is None:
        return
    whole = all(s.looked_at >= s.total for s in samples["items"]) and found.many["items"] == len(samples["items"])
    catalogue = items.combine_chunks()
    found.known_items = _share(events, catalogue)
    found.spellings = {how: _share(f(events), f(catalogue)) for how, f in SPELLINGS.items()}
    if whole and 1 - found.known_items > config.guards.unknown_items:
        best = max(found.spellings, key=lambda how: found.spellings[how])
        hint = f"; {best} it would be {found.spellings[best]:.0%}" if found.spellings[best] > found.known_items else ""
        example, known = events[0].as_py(), catalogue[0].as_py()
        found.problems.append(
            f"the catalogue knows the items of {found.known_items:.0%} of the events looked at{hint}: an event has "
            f"'{example}', the catalogue '{known}'"
        )


def _repeated(s: Sampled) -> Iterator[str]:
    """A catalogue with several rows of an item, of which the last counts."""
    n, distinct = s.rows.num_rows, len(pc.unique(s.rows["item_id"]))
    if n - distinct > REPEATED * n:
        example = s.rows["item_id"].value_counts().sort(order="descending", by="counts")[0]["values"].as_py()
        what = f"{s.source}: {n - distinct} of {n} rows looked at repeat an item_id, such as '{example}'"
        yield f"{what}; the last row of an item counts, values of the others (categories in rows) are not joined"


def _share(ids: pa.ChunkedArray, catalogue: pa.Array) -> float:
    return (pc.sum(pc.is_in(ids, value_set=catalogue)).as_py() or 0) / len(ids)


def _modalities(samples: list[Sampled], store: RawStore) -> Iterator[tuple[str, float]]:
    rows = pa.concat_tables([s.rows for s in samples])
    for m in MODALITIES:
        if m == "text":
            has = pc.or_(pc.is_valid(rows["title"]), pc.is_valid(rows["description"]))
            yield m, (pc.sum(has).as_py() or 0) / rows.num_rows
            continue
        column = rows[MODALITY_KINDS[m].raw_column]
        references = column.combine_chunks().flatten()
        step = max(1, len(references) // REFERENCES)
        looked = references[::step].to_pylist()
        there = sum(_is_there(store, r) for r in looked) / len(looked) if looked else 0.0
        yield m, _full(column) / rows.num_rows * there


def _is_there(store: RawStore, reference: str) -> bool:
    try:
        fs, path = store.locate(reference)
        return reference.startswith("embedded://") or bool(0 < fs.info(path)["size"] <= MAX_FILE_BYTES)
    except (RawError, OSError, ValueError):
        return False


def _count_work(config: Config, found: Survey, samples: dict[str, list[Sampled]]) -> None:
    """Contents that a first night would encode, and how long it would take; a later night costs what is new."""
    totals = {}
    for kind in SOURCES:
        scale = found.many[kind] / max(1, len(samples[kind]))
        totals[kind] = round(sum(s.total for s in samples[kind]) * scale)
    found.to_encode = {
        m: round(found.modalities.get(m, 0.0) * totals["items"]) for m in MODALITIES if m in config.encoders
    }
    uploads = found.columns.get("user_content", {})
    for m in found.to_encode:
        found.to_encode[m] += round(uploads.get(m, 0.0) * totals["user_content"])
    found.minutes = sum(n / PER_SECOND[m] for m, n in found.to_encode.items()) / 60
    found.disk_mb = (totals["interactions"] * BYTES_OF_EVENT + totals["items"] * BYTES_OF_ITEM) / 1e6

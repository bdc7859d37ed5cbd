"""Raw data that was there and is there no longer, or that is of another time: files gone, a catalogue cut short.

Judged before anything is published, as tables follow what the raw files hold. Belongs here: what the pieces of tonight
lack against the last night's tables and files. Does not: columns (``judge``), rows that are refused (``lake.guards``).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from statistics import median

import pyarrow.parquet as pq

from pipelines.config import Config
from pipelines.lake.health import waiting
from pipelines.lake.storage import Lake
from pipelines.raw.known import Piece
from pipelines.raw.places import DataError
from pipelines.raw.versions import whole_days

USUAL_DAYS = 28  # latest days with events, of which the median is what is usual
FAR = timedelta(days=31)  # from the date in a file's name to that of its events
SHOWN = 3  # files in a message


def stop_where_data_is_gone(config: Config, lake: Lake, pieces: Mapping[str, list[Piece]], day: date) -> None:
    """Check that raw files still hold what the tables have of them.

    Raises:
        DataError: more than ``guards.gone_rows`` is gone, with what and from where.
    """
    problems = _events_gone(config, lake, pieces["interactions"], day)
    problems += _events_of_another_time(config, pieces["interactions"], day)
    if config.items.mode == "snapshot":
        problems += _catalogue_cut(config, pieces["items"], day)
    if problems:
        raise DataError(problems)


def _events_gone(config: Config, lake: Lake, pieces: list[Piece], day: date) -> list[str]:
    """Events of the tables that no raw file has any more; what is refused now is not gone.

    A day whose numbers have stopped its night is to be mended: what goes from it is no loss.
    """
    before = {d: lake.require("std_interactions", d) for d in lake.days("std_interactions", day)}
    mended = waiting(lake, day + timedelta(days=1), config)
    before = {d: m for d, m in before.items() if d >= config.start_date and d not in mended}
    full = [m.rows for m in before.values() if m.rows]
    if not full:
        return []
    still: Counter[str] = Counter()
    for piece in pieces:
        for days in (piece.account.days, piece.account.rejected_days):
            still.update({d: n for d, (n, _) in days.items()})
    missing = {d: m.rows - still[d.isoformat()] for d, m in before.items()}
    gone, usual = sum(missing.values()), median(full[-USUAL_DAYS:])
    if gone <= config.guards.gone_rows * usual:
        return []
    lacking = [d for d, n in missing.items() if n > 0]
    files = {name.rpartition("@")[0] for d in lacking for name in before[d].inputs} - {p.source for p in pieces}
    where = f" (no longer there: {_some(files)})" if files else ""
    return [
        f"{gone} of the {sum(full)} events of tables are in no raw file any more, of days from {lacking[0]} to "
        f"{lacking[-1]}{where}; put them back, or set guards.gone_rows above {gone / usual:.1f} to let them go"
    ]


def _events_of_another_time(config: Config, pieces: list[Piece], day: date) -> list[str]:
    """New files with a date in their name whose events are far from it."""
    problems = []
    for piece in pieces:
        named, days = piece.file_day, {date.fromisoformat(d): n for d, (n, _) in piece.account.days.items()}
        if named is None or not config.start_date <= named <= day or day not in (named, piece.first_seen):
            continue
        far = {d: n for d, n in days.items() if d > day + timedelta(days=1) or d < min(config.start_date, named - FAR)}
        if sum(far.values()) > config.guards.lost_rows * sum(days.values()):
            what = f"{sum(far.values())} of its {sum(days.values())} events are of {min(far)} to {max(far)}"
            advice = "set time_format, time_unit, time_origin or timezone, or guards.lost_rows = 1"
            problems.append(f"{piece.source}: {what}, the file is of {named}; {advice}")
    return problems


def _catalogue_cut(config: Config, pieces: list[Piece], day: date) -> list[str]:
    """A whole catalogue that has lost more items than is allowed."""
    days = whole_days(pieces, day)
    if len(days) < 2:
        return []
    earlier, latest = (_items_of(pieces, d) for d in days[-2:])
    gone = len(earlier - latest)
    if gone <= config.guards.gone_rows * len(earlier):
        return []
    files = _some(p.source for p in pieces if p.file_day == days[-1])
    return [
        f"{files}: {gone} of the {len(earlier)} items of {days[-2]} are not in it, as if it were cut; deliver it "
        f"again, or set guards.gone_rows above {gone / len(earlier):.2f} to let them go"
    ]


def _items_of(pieces: Iterable[Piece], day: date) -> set[str]:
    mine = [p for p in pieces if p.file_day == day]
    return {i for p in mine for i in pq.read_table(p.rows, columns=["item_id"])["item_id"].to_pylist()}


def _some(files: Iterable[str]) -> str:
    names = sorted(files)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

"""What came back of the lists of an earlier night: which places were shown, and what users did with them.

Writes ``feedback``: of night D the lists of ``feedback.window_days`` nights before, whose window ends with D. Belongs
here: which event counts for which place. Does not: how strong events count in training (``night.events``), whether an
arm is better (``experiment``).
"""

import logging
from collections.abc import Iterator
from datetime import date, timedelta

import pyarrow as pa

from pipelines.config import Config
from pipelines.engine.database import database
from pipelines.lake.schemas import EVERYONE
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.night.events import IMPRESSION, end_of_day

log = logging.getLogger(__name__)

CLICKS = ("view", "click", "play")
EVENTS = ["user_id", "item_id", "event", "value", "event_at", "recommendation_id"]
LISTS = ["recommendation_id", "user_id", "item_id", "rank", "model", "arm", "propensity"]
OUR_ID = r"^\d{8}-[0-9a-f]{20}$"

ATTRIBUTED = f"""
    WITH happened AS (SELECT row_number() OVER () AS n, * FROM events),
    named AS (SELECT DISTINCT night, user_id FROM lists),
    readers AS (
        SELECT nights.night, active.user_id, coalesce(own.user_id, segment.user_id, everyone.user_id) AS reads
        FROM (SELECT DISTINCT night FROM named) AS nights CROSS JOIN (SELECT DISTINCT user_id FROM happened) AS active
        LEFT JOIN named AS own ON own.night = nights.night AND own.user_id = active.user_id
        LEFT JOIN segments ON segments.night = nights.night AND segments.user_id = active.user_id
        LEFT JOIN named AS segment
            ON segment.night = nights.night AND segment.user_id = '{EVERYONE}' || segments.segment
        LEFT JOIN named AS everyone ON everyone.night = nights.night AND everyone.user_id = '{EVERYONE}'
    ),
    quoted AS (
        SELECT h.n, l.night, l.recommendation_id FROM happened AS h
        JOIN lists AS l ON l.recommendation_id = h.recommendation_id AND l.item_id = h.item_id
            AND h.event_at >= l.starts_at
    ),
    met AS (
        SELECT h.n, l.night, l.recommendation_id FROM happened AS h
        JOIN readers AS r ON r.user_id = h.user_id
        JOIN lists AS l ON l.night = r.night AND l.user_id = r.reads AND l.item_id = h.item_id
            AND h.event_at >= l.starts_at AND h.event_at < l.ends_at
        WHERE h.n NOT IN (SELECT n FROM quoted) AND NOT (
            regexp_matches(coalesce(h.recommendation_id, ''), '{OUR_ID}')
            AND left(h.recommendation_id, 8) NOT IN (SELECT strftime(night, '%Y%m%d') FROM named))
    ),
    touched AS (
        SELECT * FROM (SELECT * FROM quoted UNION ALL SELECT * FROM met)
        QUALIFY row_number() OVER (PARTITION BY n ORDER BY night DESC, recommendation_id) = 1
    )
    SELECT l.recommendation_id, h.user_id, l.item_id, l.night, l.model, l.arm, l.rank, l.propensity,
        CASE WHEN bool_or(h.event = '{IMPRESSION}') THEN 'impression' ELSE 'reaction' END AS shown,
        bool_or(h.event IN {CLICKS}) AS clicked,
        bool_or(h.event = 'favorite') AS favourite,
        arg_max(h.value, h.event_at) FILTER (h.event = 'rating' AND h.value IS NOT NULL) AS rating,
        bool_or(h.event = 'purchase') AS purchased,
        bool_or(h.event IN ('skip', 'dislike')) AS disliked,
        sum(h.value ORDER BY h.event_at, h.value) FILTER (h.event = 'play') AS seconds,
        min(h.event_at) FILTER (h.event <> '{IMPRESSION}') AS reacted_at,
        count(*) FILTER (h.event <> '{IMPRESSION}') AS reactions
    FROM touched AS t JOIN happened AS h USING (n)
    JOIN lists AS l ON l.recommendation_id = t.recommendation_id AND l.night = t.night
    WHERE t.night = $night
    GROUP BY ALL ORDER BY l.recommendation_id, h.user_id
"""  # noqa: S608, all names are ours

ASSUMED = f"""
    SELECT a.* REPLACE (
        CASE WHEN a.shown = 'reaction' AND own.user_id IS NOT NULL THEN 'assumed' ELSE a.shown END AS shown)
    FROM attributed AS a LEFT JOIN lists AS own
        ON own.recommendation_id = a.recommendation_id AND own.user_id = a.user_id AND own.night = a.night
    UNION ALL
    SELECT l.recommendation_id, l.user_id, l.item_id, l.night, l.model, l.arm, l.rank, l.propensity, 'assumed',
        false, false, NULL, false, false, NULL, NULL, 0
    FROM lists AS l ANTI JOIN attributed AS a ON a.recommendation_id = l.recommendation_id AND a.user_id = l.user_id
    WHERE l.night = $night AND NOT starts_with(l.user_id, '{EVERYONE}')
    ORDER BY 1, 2
"""  # noqa: S608, all names are ours


def feedback(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish ``feedback`` of the night; it is empty where the night whose window ends made no lists."""
    night, settings = day - timedelta(days=config.feedback.window_days), config.feedback
    rows, inputs = TABLES["feedback"].schema({}).empty_table(), dict[str, str]()
    nights = [night + timedelta(days=n) for n in range(settings.window_days)]
    nights = [d for d in nights if lake.manifest("recommendations", d)]
    if night in nights:
        lists, segments = lists_of(config, lake, nights), segments_of(lake, nights)
        days = [d for d in lake.days("std_interactions", day) if d > night]
        events = lake.read_days("std_interactions", days, EVENTS) if days else None
        if events is not None:
            rows = attributed(lists, events, segments, night, settings.assume_shown)
        inputs = {f"recommendations.{d}": lake.require("recommendations", d).content_digest for d in nights}
    else:
        log.info("feedback %s: no lists of %s", day, night)
    yield lake.publish("feedback", day, rows, config_digest=config.digest("feedback"), inputs=inputs)


def lists_of(config: Config, lake: Lake, nights: list[date]) -> pa.Table:
    """Rows of ``recommendations`` of some nights, with the night and the time in which events count for them."""
    window, parts = timedelta(days=config.feedback.window_days), list[pa.Table]()
    for night in nights:
        rows = lake.read("recommendations", night, LISTS)
        if "propensity" not in rows.column_names:  # of an earlier version
            rows = rows.append_column("propensity", pa.nulls(len(rows), pa.float32())).select(LISTS)
        starts = end_of_day(night, config.timezone)
        times = {"night": (night, pa.date32()), "starts_at": (starts, None), "ends_at": (starts + window, None)}
        for name, (value, kind) in times.items():
            rows = rows.append_column(name, pa.repeat(pa.scalar(value, kind or pa.timestamp("us", "UTC")), len(rows)))
        parts.append(rows)
    return pa.concat_tables(parts)


def segments_of(lake: Lake, nights: list[date]) -> pa.Table:
    """Night, user_id and segment of those who are of one."""
    schema = pa.schema([("user_id", pa.string()), ("segment", pa.string()), ("night", pa.date32())])
    parts = [schema.empty_table()]
    for night in nights:
        if lake.manifest("std_users", night):
            rows = lake.read("std_users", night, ["user_id", "segment"])
            column = pa.repeat(pa.scalar(night, pa.date32()), len(rows))
            parts.append(rows.append_column("night", column).cast(schema).drop_null())
    return pa.concat_tables(parts)


def attributed(lists: pa.Table, events: pa.Table, segments: pa.Table, night: date, assume_shown: bool) -> pa.Table:
    """Rows of ``feedback`` for the lists of a night.

    An event that quotes a recommendation counts for it. Another one counts for the latest list, of those whose window
    it falls into, that has the item: the user's own, else that of the segment, else that for anyone else. A place was
    shown if there is an impression of it or any reaction; or, where that is assumed and the log has no impressions, if
    it was served.

    Args:
        lists: see ``lists_of``; of the night and of later ones, which may come first.
        events: user_id, item_id, event, value, event_at, recommendation_id.
        segments: see ``segments_of``.
        night: whose lists are judged.
        assume_shown: whether all that was served was shown.
    """
    connection = database()
    for name, table in (("lists", lists), ("events", events), ("segments", segments)):
        connection.register(name, table)
    found = connection.sql(ATTRIBUTED, params={"night": night}).to_arrow_table()
    if assume_shown and IMPRESSION not in events["event"].unique().to_pylist():
        connection.register("attributed", found)
        found = connection.sql(ASSUMED, params={"night": night}).to_arrow_table()
    return found

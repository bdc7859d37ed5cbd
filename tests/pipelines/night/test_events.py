"""Events as users, items and weights: every number by hand."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from pipelines.night.events import COLUMNS, Dataset, Feedback, end_of_day, event_weights, numbered
from tests.lakes import at, event

WEIGHTS = {"view": 1.0, "purchase": 5.0, "rating": 2.0, "skip": -1.0}
FEEDBACK = Feedback(WEIGHTS, rating_scale=10.0, half_life_days=5.0)


def table(*events: dict[str, object]) -> pa.Table:
    types = [pa.string(), pa.string(), pa.string(), pa.float64(), pa.timestamp("us", tz="UTC")]
    return pa.Table.from_pylist(list(events), schema=pa.schema(list(zip(COLUMNS, types, strict=True))))


def data_of(*events: dict[str, object], users: str = "ab", items: str = "xyz") -> Dataset:
    return numbered(table(*events), np.array(list(users), object), np.array(list(items), object), at(11, 0), FEEDBACK)


@pytest.mark.parametrize(
    ("name", "value", "weight"),
    [
        ("view", None, 1.0),
        ("view", 7.0, 1.0),
        ("purchase", 99.0, 5.0),
        ("skip", None, -1.0),
        ("unlisted", None, 1.0),
        ("rating", 10.0, 2.0),
        ("rating", 5.0, 1.0),
        ("rating", 0.0, 0.0),
        ("rating", None, 2.0),
    ],
)
def test_weight_of_each_event(name: str, value: float | None, weight: float) -> None:
    """A rating counts value / scale of its weight; one without a value counts like any other event."""
    rows = table(event("a", "x", at(1), name, value), event("a", "x", at(1), "purchase"))
    assert event_weights(rows["event"], rows["value"], FEEDBACK).tolist() == [weight, 5.0]


def test_no_events_have_no_weights() -> None:
    assert event_weights(table()["event"], table()["value"], FEEDBACK).tolist() == []


@pytest.mark.parametrize(
    ("day", "timezone", "expected"),
    [
        (date(2026, 3, 10), "UTC", datetime(2026, 3, 11, tzinfo=UTC)),
        (date(2026, 3, 10), "Asia/Tokyo", datetime(2026, 3, 10, 15, tzinfo=UTC)),
        (date(2026, 3, 10), "America/New_York", datetime(2026, 3, 11, 4, tzinfo=UTC)),
        (date(2026, 3, 28), "Europe/Paris", datetime(2026, 3, 28, 23, tzinfo=UTC)),
        (date(2026, 3, 29), "Europe/Paris", datetime(2026, 3, 29, 22, tzinfo=UTC)),  # a day of 23 hours
        (date(2026, 12, 31), "UTC", datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_end_of_a_day_in_its_time_zone(day: date, timezone: str, expected: datetime) -> None:
    assert end_of_day(day, timezone) == expected
    assert end_of_day(day, timezone).tzinfo == ZoneInfo("UTC")


def test_events_of_known_items_in_order_of_time_then_key() -> None:
    data = data_of(
        event("b", "z", at(3)),
        event("b", "x", at(2), "view"),
        event("a", "x", at(2), "view"),
        event("a", "x", at(2), "purchase"),
        event("a", "unknown", at(1)),
        event("stranger", "x", at(1)),
    )
    assert data.user.tolist() == [0, 0, 1, 1]
    assert data.item.tolist() == [0, 0, 0, 2]
    assert data.weight.tolist() == [5.0, 1.0, 1.0, 1.0]
    assert data.age_days.tolist() == [8.5, 8.5, 8.5, 7.5], "from noon of the second to the end of the tenth"


def test_positive_feedback_decays_by_half_in_a_half_life_and_adds_up() -> None:
    data = data_of(
        event("a", "x", at(1, 0), "purchase"),  # ten days old: a quarter of 5
        event("a", "x", at(6, 0), "view"),  # five days old: a half of 1
        event("b", "y", at(11, 0), "skip"),
        event("b", "z", at(11, 0), "rating", 5.0),
    )
    assert data.positives().toarray().tolist() == [[1.75, 0, 0], [0, 0, 1]]
    assert data.seen().toarray().tolist() == [[1, 0, 0], [0, 1, 1]], "what was skipped was seen"


def test_histories_are_distinct_items_by_latest_event_oldest_first() -> None:
    data = data_of(
        event("a", "x", at(1)),
        event("a", "y", at(2)),
        event("a", "x", at(3)),
        event("a", "z", at(4), "skip"),
        event("b", "z", at(1)),
        event("b", "y", at(5)),
        users="abc",
    )
    assert [h.tolist() for h in data.histories()] == [[1, 0], [2, 1], []]


def test_new_since_leaves_out_what_was_there_before() -> None:
    data = data_of(
        event("a", "x", at(1)), event("a", "y", at(9)), event("a", "x", at(9)), event("b", "z", at(9), "skip")
    )
    earlier = data.before(5.0)
    assert [h.tolist() for h in earlier.histories()] == [[0], []]
    assert [h.tolist() for h in data.new_since(earlier)] == [[1], []]


def test_recent_events_are_counted_by_window() -> None:
    """The day ends at midnight after the tenth; a skip is no positive event."""
    data = data_of(
        event("a", "x", at(10, 1)), event("b", "x", at(10, 0)), event("a", "x", at(9, 23)), event("a", "y", at(4, 0)),
        event("a", "y", at(3, 23)), event("b", "y", at(10, 5), "skip"),
    )  # fmt: skip
    assert data.recent().tolist() == [[2, 3, 3], [0, 1, 2], [0, 0, 0]]
    assert data.before(1.0).recent().tolist() == [[1, 1, 1], [0, 2, 2], [0, 0, 0]]


def test_before_cuts_by_age_and_counts_from_the_cut() -> None:
    data = data_of(
        event("a", "x", at(1, 0)), event("a", "y", at(5, 0)), event("a", "y", at(6, 0)), event("a", "z", at(10, 0))
    )
    past = data.before(5.0)
    assert past.age_days.tolist() == [5.0, 1.0], "the first moment of a day belongs to it"
    assert past.item.tolist() == [0, 1]
    half = np.exp2(-np.array([5, 1]) / data.half_life_days)
    assert past.positives().toarray()[0].tolist() == pytest.approx([*half, 0.0])
    assert past.users is data.users


@pytest.mark.parametrize(
    ("ages", "days"),
    [
        ([], 1.0),
        ([0.2, 0.3], 1.0),
        (list(np.linspace(0, 100, 101)), 5.0),
        ([0.5] * 50 + [3.0], 1.0),
        ([7.2] * 100 + [40.0], 8.0),  # whole days
        ([7.2] * 100 + [9.0], 4.0),  # at most half the time span
    ],
)
def test_validation_days(ages: list[float], days: float) -> None:
    n = len(ages)
    none = np.zeros(n, np.int64)
    data = Dataset(np.array(["a"]), np.array(["x"]), none, none, np.ones(n), np.array(ages), 30.0)
    assert data.validation_days() == days


def test_a_user_without_events_is_put_in_order() -> None:
    data = data_of(event("a", "x", at(1)), event("b", "y", at(2)))
    more = data.with_users(["aa"])
    assert more.users.tolist() == ["a", "aa", "b"]
    assert more.user.tolist() == [0, 2]
    assert [h.tolist() for h in more.histories()] == [[0], [], [1]]
    assert more.with_users(["aa", "b"]) is more
    first = data.with_users(["*"])
    assert first.users.tolist() == ["*", "a", "b"]
    assert first.user.tolist() == [1, 2]

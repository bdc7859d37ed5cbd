"""What stops a night before it publishes: columns that are nowhere or lost, times that are off."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Config
from pipelines.lake.storage import Lake
from pipelines.raw.places import DataError
from pipelines.sections import EventsSource, ItemsSource, Paths
from pipelines.standardize import standardize

DAY = date(2026, 3, 3)
LINE = "u,i,view,2026-03-03T10:00:00Z,5\n"
HEAD = "user_id,item_id,event,event_at,amount\n"


CATALOGUE = "item_id,title\ni,x\n"


def stopped(tmp_path: Path, files: dict[str, str], catalogue: str = CATALOGUE, **config: Any) -> list[str]:
    """The problems that stop the night; none where it ends well."""
    for name, text in {**files, "items/c.csv": catalogue}.items():
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    paths = Paths(raw=str(tmp_path / "raw"), data=tmp_path / "data")
    made = Config(paths=paths, start_date=date(2026, 3, 1), **config)
    lake = Lake(tmp_path / "lake")
    try:
        list(standardize(made, lake, DAY))
    except DataError as e:
        assert not (tmp_path / "lake").exists(), "nothing is published"
        return e.problems
    return []


def events(**columns: Any) -> dict[str, Any]:
    return {"interactions": EventsSource(path="interactions", columns=columns)}


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    problems = stopped(
        tmp_path,
        {"interactions/a.csv": HEAD + LINE},
        interactions=EventsSource(path="interactions", columns={"value": "amt", "session_id": "sid"}),
        items=ItemsSource(path="items", columns={"title": "titel"}),
    )
    assert [p.split(":")[0] for p in problems] == [
        "interactions.columns.value = 'amt'",
        "interactions.columns.session_id = 'sid'",
        "items.columns.title = 'titel'",
    ]
    assert "interactions/a.csv has user_id, item_id, event, event_at, amount" in problems[0]
    assert "items/c.csv has item_id, title" in problems[2]


@pytest.mark.parametrize(
    ("source", "stops"),
    [
        ({"columns": {"value": "amt"}}, True),
        ({"columns": {"value": "amt"}, "sometimes": ("value",)}, False),
        ({"columns": {"value": "amt"}, "defaults": {"value": "1"}}, True),
        ({"columns": {"value": ("amt", "amount")}}, False),
        ({"columns": {"value": "AMOUNT"}}, False),
        ({}, False),
    ],
)
def test_a_mapped_column_that_no_file_has(tmp_path: Path, source: dict[str, Any], stops: bool) -> None:
    problems = stopped(
        tmp_path, {"interactions/a.csv": HEAD + LINE}, interactions=EventsSource(path="interactions", **source)
    )
    assert bool(problems) == stops


@pytest.mark.parametrize(
    ("name", "stops"),
    [("2026-03-03.csv", True), ("2026-03-02.csv", False), ("2026-03-04.csv", False), ("b.csv", False)],
)
def test_only_the_file_of_the_night_may_not_lose_a_column(tmp_path: Path, name: str, stops: bool) -> None:
    lost = "user_id,item_id,event,event_at\nv,i,view,2026-03-03T11:00:00Z\n"
    problems = stopped(
        tmp_path, {"interactions/a.csv": HEAD + LINE, f"interactions/{name}": lost}, **events(value="amount")
    )
    assert bool(problems) == stops
    if stops:
        assert problems[0].startswith("interactions/2026-03-03.csv: value ('amount') is not in it")


@pytest.mark.parametrize("content", ["", "\n", "\ufeff", "\n\n"])
@pytest.mark.parametrize("kind", ["interactions", "items"])
def test_an_empty_file_lacks_nothing(tmp_path: Path, content: str, kind: str) -> None:
    files = {"interactions/a.csv": HEAD + LINE, f"{kind}/2026-03-03.csv": content}
    assert stopped(tmp_path, files, **events(value="amount")) == []


def test_json_need_not_have_every_key(tmp_path: Path) -> None:
    first = '{"user_id": "u", "item_id": "i", "event": "view", "event_at": "2026-03-03T10:00:00Z"}\n'
    late = first.replace("}", ', "amount": 5}').replace('"u"', '"v"')
    assert stopped(tmp_path, {"interactions/a.jsonl": first * 300 + late}, **events(value="amount")) == []
    (problem,) = stopped(tmp_path / "2", {"interactions/a.jsonl": first}, **events(value="amount"))
    assert "no file below interactions has that column" in problem


def test_a_file_without_a_header_is_named(tmp_path: Path) -> None:
    problems = stopped(tmp_path, {"interactions/a.csv": LINE * 3})
    assert len(problems) == 4
    assert "if the file has no header, name its columns by number or set header" in problems[0]


@pytest.mark.parametrize(("year", "stops"), [("2025", True), ("2026", False)])
def test_a_log_that_ends_before_the_first_day(tmp_path: Path, year: str, stops: bool) -> None:
    problems = stopped(tmp_path, {"interactions/a.csv": HEAD + LINE.replace("2026", year)})
    assert bool(problems) == stops
    if stops:
        assert problems[0].startswith(
            "interactions/a.csv: all events lie before start_date 2026-03-01: from 2025-03-03"
        )


def test_a_log_of_properties_is_no_catalogue(tmp_path: Path) -> None:
    items = "timestamp,item_id,property,value\n1772323200000,i,color,red\n"
    (problem,) = stopped(tmp_path, {"interactions/a.csv": HEAD + LINE}, items)
    assert problem.startswith("items/c.csv: a log of properties (timestamp, item_id, property, value)")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "'user_id','item_id','event','event_at'\n'u','i','view','2026-03-03'\n", "single quotes are no"),
        ("a.txt", 'user_id item_id event event_at\nu i view 2026-03-03\n', 'set interactions.delimiter = " "'),
        ("a.json", "[[1, 2], [3, 4]]", "has no object; write interactions.columns.user_id"),
        ("a.json", "[[1, 2], [3, 4]]", "rows have to be objects, not lists"),
        ("a.json", '{"a": [{"x": 1}], "b": [{"y": 2}]}', 'set interactions.records = "<its path>"'),
        ("a.csv", "u1,i1,view,2026-03-03\nu2,i2,view,2026-03-03\n", "name its columns by number"),
    ],
)  # fmt: skip
def test_a_column_that_is_nowhere_for_another_reason(tmp_path: Path, name: str, text: str, says: str) -> None:
    problems = stopped(tmp_path, {f"interactions/{name}": text})
    assert any(says in p for p in problems), problems


@pytest.mark.parametrize(("prices", "stops"), [(["12x", "13x"], True), (["12x", "13"], False), (["", ""], False)])
def test_a_mapped_column_of_which_nothing_can_be_read(tmp_path: Path, prices: list[str], stops: bool) -> None:
    catalogue = "item_id,title,cost\n" + "".join(f"i{n},x,{p}\n" for n, p in enumerate(prices))
    problems = stopped(
        tmp_path,
        {"interactions/a.csv": HEAD + LINE},
        catalogue,
        items=ItemsSource(path="items", columns={"price": "cost"}),
    )
    assert bool(problems) == stops
    if stops:
        assert "items.columns.price = 'cost': none of its 2 cells could be read (bad_number)" in problems[0]
        assert "items/c.csv line 2 holds '12x'" in problems[0]

"""Raw data that is gone, cut short or of another time stops a night before anything is published."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Config
from pipelines.lake.storage import Lake
from pipelines.operation import Guards
from pipelines.raw.places import DataError
from pipelines.sections import ItemsSource, Paths
from pipelines.standardize import standardize

FIRST = date(2026, 3, 1)
HEAD = "user_id,item_id,event,event_at\n"


class House:
    """A folder of raw files and its nights."""

    def __init__(self, root: Path, **config: Any):
        self.root, self.config = root, config
        self.write("items/c.csv", "item_id,title\n" + "".join(f"i{n},t\n" for n in range(30)))

    def write(self, name: str, text: str) -> Path:
        path = self.root / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def events(self, name: str, day: int, rows: int = 10, at: date | None = None) -> Path:
        when = at or date(2026, 3, day)
        return self.write(name, HEAD + "".join(f"u{n},i{n},view,{when}T10:{n:02d}:00Z\n" for n in range(rows)))

    def night(self, day: int, **more: Any) -> list[str]:
        """Problems that stopped it."""
        paths = Paths(raw=str(self.root / "raw"), data=self.root / "data")
        config = Config(paths=paths, **{"start_date": FIRST, **self.config, **more})
        try:
            list(standardize(config, self.lake, date(2026, 3, day)))
        except DataError as e:
            return e.problems
        return []

    @property
    def lake(self) -> Lake:
        return Lake(self.root / "lake")

    def rows(self) -> list[int]:
        return [self.lake.rows("std_interactions", d) for d in self.lake.days("std_interactions")]


def test_a_log_that_vanishes_does_not_take_its_history_along(tmp_path: Path) -> None:
    house = House(tmp_path)
    files = [house.events(f"interactions/2026-03-0{d}.csv", d) for d in (1, 2, 3)]
    assert house.night(3) == []
    for f in files[:2]:
        f.unlink()
    (problem,) = house.night(4)
    assert "20 of the 30 events of tables are in no raw file any more, of days from 2026-03-01 to 2026-03-02" in problem
    assert "interactions/2026-03-01.csv, interactions/2026-03-02.csv" in problem
    assert "guards.gone_rows above 2.0" in problem
    assert house.rows() == [10, 10, 10], "nothing was published"
    assert house.night(4, guards=Guards(gone_rows=2.1)) == []
    assert house.rows() == [0, 0, 10, 0]
    assert house.night(5) == [], "what was let go is not missed again"


@pytest.mark.parametrize(("left", "stops"), [(6, False), (5, False), (4, True)])
def test_half_of_a_usual_day_may_be_gone(tmp_path: Path, left: int, stops: bool) -> None:
    house = House(tmp_path)
    for d in (1, 2, 3):
        house.events(f"interactions/{d}.csv", d)
    assert house.night(3) == []
    house.events("interactions/2.csv", 2, rows=left)
    assert bool(house.night(4)) == stops


def test_what_is_under_another_name_now_is_not_gone(tmp_path: Path) -> None:
    house = House(tmp_path)
    log = house.events("interactions/log.csv", 1)
    assert house.night(1) == []
    log.rename(log.with_name("log-2026-03-01.csv"))
    assert house.night(2) == []
    assert house.rows() == [10, 0]


def test_what_is_refused_now_is_not_gone(tmp_path: Path) -> None:
    house = House(tmp_path)
    log = house.events("interactions/2026-03-01.csv", 1)
    assert house.night(1) == []
    log.write_text(log.read_text().replace("T10", "X10"))
    assert house.night(2) == []


@pytest.mark.parametrize(("year", "far"), [(2036, True), (2024, True), (2026, False)])
def test_events_far_from_the_date_of_their_file_stop_the_night(tmp_path: Path, year: int, far: bool) -> None:
    house = House(tmp_path)
    house.events("interactions/2026-03-01.csv", 1)
    house.events("interactions/2026-03-02.csv", 2, at=date(year, 3, 2))
    problems = house.night(2)
    assert bool(problems) == far
    if far:
        assert f"interactions/2026-03-02.csv: 10 of its 10 events are of {year}-03-02 to {year}-03-02" in problems[0]
        assert "the file is of 2026-03-02" in problems[0]
        assert house.night(2, guards=Guards(lost_rows=1.0)) == []


def test_a_delivery_of_last_months_events_is_read(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.events("interactions/a.csv", 1)
    house.events("interactions/2026-03-02.csv", 2, at=FIRST - timedelta(days=20))
    assert house.night(2) == []


@pytest.mark.parametrize(("items", "stops"), [(10, False), (5, False), (4, True)])
def test_a_whole_catalogue_that_is_cut_stops_the_night(tmp_path: Path, items: int, stops: bool) -> None:
    house = House(tmp_path, items=ItemsSource(path="items", mode="snapshot"))
    house.events("interactions/log.csv", 1)
    (tmp_path / "raw/items/c.csv").unlink()
    for day, n in ((1, 10), (2, items)):
        house.write(f"items/2026-03-0{day}.csv", "item_id,title\n" + "".join(f"i{k},t\n" for k in range(n)))
    problems = house.night(2)
    assert bool(problems) == stops
    if stops:
        assert "items/2026-03-02.csv: 6 of the 10 items of 2026-03-01 are not in it" in problems[0]
        assert house.night(2, guards=Guards(gone_rows=0.7)) == []
        assert house.lake.read("std_items", date(2026, 3, 2))["status"].to_pylist() == [None] * 4 + ["removed"] * 6


def test_days_before_a_later_start_are_taken_away(tmp_path: Path) -> None:
    house = House(tmp_path)
    for d in (1, 2, 3, 4):
        house.events(f"interactions/{d}.csv", d)
    assert house.night(4) == []
    assert house.night(4, start_date=date(2026, 3, 3)) == []
    assert house.lake.days("std_interactions") == [date(2026, 3, 3), date(2026, 3, 4)]
    assert house.night(4) == []
    assert house.rows() == [10, 10, 10, 10]

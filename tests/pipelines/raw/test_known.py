"""What is new of raw files: nothing is opened twice, a log that grew is read from where it ended."""

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import Config
from pipelines.raw import known
from pipelines.raw.known import Known, Piece
from pipelines.raw.pieces import read_parts
from pipelines.raw.places import RawStore
from pipelines.sections import EventsSource, Paths

HEAD = "user_id,item_id,event,event_at\n"
DAY = date(2026, 3, 1)


def line(n: int) -> str:
    return f"u{n},i{n},view,{1772323200 + n}\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "raw" / "interactions").mkdir(parents=True)
    return Config(paths=Paths(raw=str(tmp_path / "raw"), data=tmp_path / "data"), start_date=DAY)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of raw files that are opened."""
    names: list[str] = []
    real = RawStore.open

    def noted(self: RawStore, name: str) -> IO[bytes]:
        names.append(name)
        return real(self, name)

    monkeypatch.setattr(RawStore, "open", noted)
    return names


def log(config: Config) -> Path:
    return Path(config.paths.raw) / "interactions" / "log.csv"


def users(pieces: list[Piece]) -> list[tuple[int, str]]:
    """(line, user) of all rows."""
    tables = [pq.read_table(p.rows) for p in pieces]
    rows = pa.concat_tables(tables).to_pylist()
    return [(r["_position"], r["user_id"]) for r in rows]


def test_a_file_that_is_unchanged_is_not_opened(config: Config, opened: list[str]) -> None:
    log(config).write_text(HEAD + line(1))
    first = Known("interactions", config).pieces(DAY)
    assert opened
    opened.clear()
    again = Known("interactions", config).pieces(DAY)
    assert opened == []
    assert [p.folder for p in again] == [p.folder for p in first]
    assert users(again) == [(2, "u1")]


def test_a_file_that_was_only_touched_is_not_read_again(config: Config) -> None:
    log(config).write_text(HEAD + line(1))
    first = Known("interactions", config).pieces(DAY)
    made = first[0].rows.stat().st_mtime_ns
    os.utime(log(config), ns=(1, 1))
    again = Known("interactions", config).pieces(DAY)
    assert ([p.folder for p in again], again[0].rows.stat().st_mtime_ns) == ([first[0].folder], made)


def test_a_log_that_grew_is_read_from_where_it_ended(config: Config) -> None:
    log(config).write_text(HEAD + "".join(line(n) for n in range(3)))
    (first,) = Known("interactions", config).pieces(DAY)
    for n in (3, 4):
        with log(config).open("a") as f:
            f.write(line(n))
        pieces = Known("interactions", config).pieces(DAY)
        assert pieces[0].folder == first.folder
        assert [p.account.rows for p in pieces] == [3, *[1] * (n - 2)]
        assert users(pieces) == [(k + 2, f"u{k}") for k in range(n + 1)], "lines go on"


def rewritten_head(text: str) -> str:
    return text.replace("u0", "u9") + line(3)


def shorter(text: str) -> str:
    return "".join(text.splitlines(keepends=True)[:-1])


@pytest.mark.parametrize("change", [rewritten_head, shorter, lambda text: text.replace("u1", "uX")])
def test_a_file_that_changed_otherwise_is_read_in_full(config: Config, change: Callable[[str], str]) -> None:
    text = HEAD + "".join(line(n) for n in range(3))
    log(config).write_text(text)
    (first,) = Known("interactions", config).pieces(DAY)
    log(config).write_text(change(text))
    (second,) = Known("interactions", config).pieces(DAY)
    assert second.folder != first.folder
    assert not first.folder.exists(), "what a user deletes is not kept"
    fresh = [row.split(",")[0] for row in change(text).splitlines()[1:]]
    assert [u for _, u in users([second])] == fresh


def test_a_log_whose_last_line_was_not_whole_is_read_in_full(config: Config) -> None:
    log(config).write_text(HEAD + line(0) + "u1,i1,view,177232")
    Known("interactions", config).pieces(DAY)
    log(config).write_text(HEAD + line(0) + line(1))
    pieces = Known("interactions", config).pieces(DAY)
    assert users(pieces) == [(2, "u0"), (3, "u1")]


@pytest.mark.parametrize("source", [{"fill_down": {"event_at": "user_id"}}, {"encoding": "utf-16"}])
def test_what_needs_the_rows_above_it_is_read_in_full(config: Config, source: dict[str, Any]) -> None:
    config = config.model_copy(update={"interactions": EventsSource(path="interactions", **source)})
    encoding = source.get("encoding", "utf-8")
    log(config).write_bytes((HEAD + line(0)).encode(encoding))
    Known("interactions", config).pieces(DAY)
    log(config).write_bytes((HEAD + line(0) + line(1)).encode(encoding))
    (piece,) = Known("interactions", config).pieces(DAY)
    assert users([piece]) == [(2, "u0"), (3, "u1")]


def ranges_of(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "RANGE_BYTES", size)
    monkeypatch.setattr(known, "STEP_BYTES", 64)


@pytest.mark.parametrize("fmt", ["csv", "json"])
def test_a_big_file_is_read_in_ranges_that_are_one_file(
    config: Config, monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    ranges_of(400, monkeypatch)
    if fmt == "csv":
        text = HEAD + "".join(f'u{n},"i\n{n}",view,{1772323200 + n}\n' for n in range(100))
    else:
        text = "".join(f'{{"user_id": "u{n}", "item_id": "i", "event": "view", "event_at": {1772323200 + n}}}\n' for n in range(100))  # noqa: E501 # fmt: skip
    log(config).write_text(text)
    pieces = Known("interactions", config).pieces(DAY)
    assert len(pieces) > 3
    step, first = (2, 2) if fmt == "csv" else (1, 1)
    assert users(pieces) == [(first + step * n, f"u{n}") for n in range(100)]
    assert sum(p.account.rejects for p in pieces) == 0


def test_ranges_are_not_cut_where_a_stray_quote_says(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges_of(400, monkeypatch)
    monkeypatch.setattr(known, "STEP_BYTES", 200)
    text = HEAD + 'u,3" screen,view,1772323200\n'
    text += "".join(f'u{n},"i\n{n}",view,{1772323200 + n}\nu{n},j,view,{n + 1772323200}\nu{n},k,view,{n + 1772323200}\n' for n in range(60))  # noqa: E501 # fmt: skip
    log(config).write_text(text)
    pieces = Known("interactions", config).pieces(DAY)
    assert len(pieces) > 3
    assert len(users(pieces)) == 181
    assert sum(p.account.rejects for p in pieces) == 0


def test_other_settings_read_everything_again(config: Config) -> None:
    log(config).write_text(HEAD + line(1))
    (first,) = Known("interactions", config).pieces(DAY)
    other = config.model_copy(update={"timezone": "Europe/Berlin"})
    (second,) = Known("interactions", other).pieces(DAY)
    assert first.folder != second.folder


def test_the_night_that_first_saw_a_file_is_remembered(config: Config) -> None:
    log(config).write_text(HEAD + line(1))
    later = date(2026, 3, 5)
    assert Known("interactions", config).pieces(later)[0].first_seen == later
    assert Known("interactions", config).pieces(date(2026, 3, 6))[0].first_seen == later
    assert Known("interactions", config).pieces(DAY)[0].first_seen == later, "a backfill was not the first to see it"


def test_another_file_of_the_same_name_is_seen_for_the_first_time(config: Config) -> None:
    second, third = date(2026, 3, 2), date(2026, 3, 3)
    log(config).write_text(HEAD + line(1))
    assert Known("interactions", config).pieces(DAY)[0].first_seen == DAY
    log(config).write_text(HEAD + line(1) + line(2))
    assert {p.first_seen for p in Known("interactions", config).pieces(second)} == {DAY}, "it only grew"
    log(config).write_text(HEAD + line(3))
    assert Known("interactions", config).pieces(third)[0].first_seen == third


@pytest.mark.parametrize("file", ["rows.parquet", "rejects.parquet", "account.json"])
@pytest.mark.parametrize("damage", [b"", b"null", None])
def test_a_damaged_piece_is_read_again(config: Config, file: str, damage: bytes | None) -> None:
    log(config).write_text(HEAD + line(1))
    (piece,) = Known("interactions", config).pieces(DAY)
    if damage is None:
        (piece.folder / file).unlink()
    else:
        (piece.folder / file).write_bytes(damage)
    assert users(Known("interactions", config).pieces(DAY)) == [(2, "u1")]


@pytest.mark.parametrize("damage", ["", "null", "[]", '{"interactions/log.csv": {}}', '{"interactions/log.csv": 1}'])
def test_a_damaged_memory_is_made_again(config: Config, damage: str) -> None:
    log(config).write_text(HEAD + line(1))
    Known("interactions", config).pieces(DAY)
    Known("interactions", config).path.write_text(damage)
    assert users(Known("interactions", config).pieces(DAY)) == [(2, "u1")]


def test_a_text_that_a_log_was_cut_in_is_read_once_it_is_whole(config: Config) -> None:
    head = "user_id,created_at,text\n"
    path = Path(config.paths.raw) / "user_content" / "r.csv"
    path.parent.mkdir()
    path.write_text(head + 'u1,2026-03-01T00:00:00Z,"fine, 1"\n' * 5 + 'u2,2026-03-01T00:00:00Z,"I like the sea.\n')
    (first,) = Known("user_content", config).pieces(DAY)
    assert (first.account.rows, first.account.rejects) == (5, 1), "the quote is open"
    with path.open("a") as f:
        f.write('But not this one."\nu3,2026-03-01T00:00:00Z,ok\n')
    pieces = Known("user_content", config).pieces(DAY)
    texts = [t for p in pieces for t in pq.read_table(p.rows)["text"].to_pylist()]
    assert texts == ["fine, 1"] * 5 + ["I like the sea.\nBut not this one.", "ok"]


def test_bytes_that_changed_in_secret_are_found_by_hashing(config: Config) -> None:
    log(config).write_text(HEAD + line(1))
    Known("interactions", config).pieces(DAY)
    stat = log(config).stat()
    with log(config).open("r+") as f:
        f.seek(len(HEAD))
        f.write("v")
    os.utime(log(config), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert users(Known("interactions", config).pieces(DAY)) == [(2, "u1")], "by size and time it is the same"
    assert Known("interactions", config).forget_changed() == ["interactions/log.csv"]
    assert users(Known("interactions", config).pieces(DAY)) == [(2, "v1")]
    assert Known("interactions", config).forget_changed() == []


def test_pictures_between_tables_are_no_tables(config: Config) -> None:
    log(config).write_text(HEAD + line(1))
    log(config).with_name("cover.jpg").write_bytes(b"\xff\xd8")
    log(config).with_name("_SUCCESS").write_text("")
    log(config).with_name(".log.csv.crc").write_text("")
    assert Known("interactions", config).names() == ["interactions/log.csv"]


def test_a_glob_names_files(config: Config) -> None:
    for name in ("events_1.csv", "events_2.csv", "properties.csv"):
        log(config).with_name(name).write_text(HEAD + line(1))
    chosen = config.model_copy(update={"interactions": EventsSource(path="interactions/events_*.csv")})
    assert Known("interactions", chosen).names() == ["interactions/events_1.csv", "interactions/events_2.csv"]


def test_what_a_log_gets_while_it_is_read_is_read_the_next_night_alone(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(config).write_text(HEAD + line(1))

    def slowly(todo: list[Any], config: Config) -> None:
        with log(config).open("a") as f:
            f.write(line(2))
        read_parts(todo, config)

    monkeypatch.setattr(known, "read_parts", slowly)
    assert users(Known("interactions", config).pieces(DAY)) == [(2, "u1")]
    monkeypatch.setattr(known, "read_parts", read_parts)
    pieces = Known("interactions", config).pieces(DAY)
    assert users(pieces) == [(2, "u1"), (3, "u2")]
    assert len(pieces) == 2


def test_a_log_whose_new_lines_show_another_shape_is_read_in_full(config: Config) -> None:
    log(config).write_text("user_id,item_id,event,event_at,value\nu1,i1,view,1772323200,1.299\n")
    Known("interactions", config).pieces(DAY)
    with log(config).open("a") as f:
        f.write('u2,i1,view,1772323200,"1.299,50"\nu2,i1,view,1772323200,"9,90"\n')
    (piece,) = Known("interactions", config).pieces(DAY)
    assert pq.read_table(piece.rows)["value"].to_pylist() == [1299.0, 1299.5, 9.9]


def test_a_log_without_rows_yet_is_read_from_its_beginning(config: Config) -> None:
    log(config).write_text("# written by the shop\n")
    Known("interactions", config).pieces(DAY)
    with log(config).open("a") as f:
        f.write(HEAD + line(1))
    pieces = Known("interactions", config).pieces(DAY)
    assert users(pieces) == [(3, "u1")]


def test_rejects_of_what_a_log_got_count_as_if_it_were_read_at_once(config: Config) -> None:
    """An undated line counts on the day of the row before it, in whichever part that is."""
    first, second = 1772323200, 1772323200 + 86_400
    log(config).write_text(HEAD + f"u,i,view,{first}\n")
    Known("interactions", config).pieces(DAY)
    with log(config).open("a") as f:
        f.write(f"torn\nv,i,view,{second}\n")
    grown = Known("interactions", config).pieces(DAY)
    assert [list(p.account.rejected_days) for p in grown] == [[], ["2026-03-01"]]

"""What people see before a night runs: check, init; and after it: the summary."""

import gzip
import json
import os
from datetime import date
from pathlib import Path

import pytest

from assets.cli import main
from pipelines.config import load_config
from pipelines.raw.known import Known
from tests.shop import write_jsonl

LINES = "".join(f"u{n % 7};i{n % 5};View;{1 + n % 3:02d}.03.2026 14:{n % 60:02d};4,50\n" for n in range(60))


def shop(root: Path, items: int = 5) -> Path:
    """A log of a German spreadsheet, a catalogue, pictures named by item, a file that nothing reads."""
    raw = root / "raw"
    (raw / "sales").mkdir(parents=True)
    (raw / "sales" / "export.csv").write_bytes(
        ("Kunde;Artikel;event;Zeit;Betrag\n" + LINES + "Café;x\n").encode("cp1252")
    )
    write_jsonl(raw / "stock" / "items.jsonl", [{"sku": f"i{n}", "name": f"thing {n}"} for n in range(items)])
    (raw / "covers").mkdir()
    for n in range(5):
        (raw / "covers" / f"i{n}.jpg").write_bytes(b"\xff\xd8 picture")
    (raw / "people.csv").write_text("uid,age,tier\n" + "".join(f"u{n},{20 + n},gold\n" for n in range(7)))
    (raw / "notes.md").write_text("remember\n")
    return raw


def test_from_a_folder_to_a_configuration_that_check_accepts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = shop(tmp_path), tmp_path / "mine.toml"
    assert main(["init", str(raw), "--out", str(out)]) == 0
    config = load_config(out)
    assert config.start_date == date(2026, 3, 1)
    assert dict(config.interactions.columns) == {
        "user_id": "Kunde", "item_id": "Artikel", "event": "event", "event_at": "Zeit", "value": "Betrag",
    }  # fmt: skip
    assert dict(config.items.columns) == {"item_id": "sku", "title": "name", "images": "covers/{item_id}.jpg"}
    assert (config.users.path, dict(config.users.columns)) == ("people.csv", {"user_id": "uid", "segment": "tier"})
    text = out.read_text()
    assert 'path = "sales"' in text
    assert "100% are times, such as 01.03.2026 14:00" in text, "the evidence is said"
    assert main(["init", str(raw), "--out", str(out)]) == 2, "a file that is there is not overwritten"
    capsys.readouterr()
    assert main(["check", "--config", str(out)]) == 0
    shown = capsys.readouterr().out
    for what in ("cp1252", "decimal comma", "wrong_column_count", "notes.md", "a night would run", "items with image", "100.0%"):  # noqa: E501 # fmt: skip
        assert what in shown, what


def test_what_items_have_and_no_encoder_reads_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = shop(tmp_path), tmp_path / "mine.toml"
    assert main(["init", str(raw), "--out", str(out)]) == 0
    out.write_text(out.read_text() + "\n[encoders.text]\nmodel = 'minilm'\n")
    capsys.readouterr()
    main(["check", "--config", str(out)])
    said = [line for line in capsys.readouterr().out.splitlines() if "items with" in line]
    assert [("image" in line, "no encoder" in line) for line in said] == [
        (False, False), (True, True), (False, False), (False, False),
    ]  # fmt: skip


def test_what_is_found_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = shop(tmp_path, items=2), tmp_path / "mine.toml"
    main(["init", str(raw), "--out", str(out)])
    capsys.readouterr()
    assert main(["check", "--config", str(out), "--json"]) == 1, "two of five items are known"
    found = json.loads(capsys.readouterr().out)
    assert (found["known_items"], found["events"]["view"]) == (0.4, [1.0, 1.0, True])
    assert {d: round(s, 3) for d, s in found["days"].items()} == dict.fromkeys(
        ("2026-03-01", "2026-03-02", "2026-03-03"), 0.333
    )
    files = {f["source"]: f for f in found["files"]}
    assert files["sales/export.csv"]["rows"] == 61
    assert files["sales/export.csv"]["usable"] == pytest.approx(60 / 61)
    assert files["sales/export.csv"]["reasons"][0][:3] == [1, "wrong_column_count", 62]
    assert found["to_encode"] == {"text": 2, "image": 2, "audio": 0, "video": 0}
    assert found["unread"] == ["notes.md"]
    assert "40%" in found["problems"][0]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (('"Zeit"', '"Zeiten"'), "interactions.columns.event_at = 'Zeiten': no file has it"),
        (('title   = "name"', 'title   = "titel"'), "items.columns.title = 'titel': no file has it"),
        (("start_date = 2026-03-01", "start_date = 2027-01-01"), "lie before start_date 2027-01-01"),
        (('path = "sales"', 'path = "stock"'), "no file has it"),
    ],
)
def test_what_would_stop_a_night_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: tuple[str, str], says: str
) -> None:
    raw, out = shop(tmp_path), tmp_path / "mine.toml"
    main(["init", str(raw), "--out", str(out)])
    assert edit[0] in out.read_text()
    out.write_text(out.read_text().replace(*edit, 1))
    capsys.readouterr()
    assert main(["check", "--config", str(out), "--json"]) == 1
    assert any(says in p for p in json.loads(capsys.readouterr().out)["problems"])


def test_a_folder_that_says_nothing_is_answered_by_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x.csv").write_text(
        "a,b,c\n" + "".join(f"p{n % 3},q{n % 4},2026-03-0{1 + n % 2}\n" for n in range(20))
    )
    out = tmp_path / "mine.toml"
    assert main(["init", str(tmp_path / "raw"), "--out", str(out)]) == 2
    assert "x.csv: a, b, c" in capsys.readouterr().err
    flags = ["--interactions", "x.csv", "--user", "a", "--item", "b", "--event-at", "c"]
    assert main(["init", str(tmp_path / "raw"), "--out", str(out), *flags]) == 0
    assert dict(load_config(out).interactions.columns) == {"user_id": "a", "item_id": "b", "event_at": "c"}
    assert dict(load_config(out).interactions.defaults) == {"event": "view"}


def test_values_in_comments_stay_in_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = 'x\nstart_date = 1999-01-01\n"'
    rows = [{"user_id": f"u{n}", 'it"em': evil, "item_id": evil, "event_at": "2026-03-01T00:00:00Z"} for n in range(3)]
    write_jsonl(tmp_path / "raw" / "a.jsonl", rows)
    out = tmp_path / "mine.toml"
    assert main(["init", str(tmp_path / "raw"), "--out", str(out)]) == 0
    assert load_config(out).start_date == date(2026, 3, 1)
    assert capsys.readouterr().out


def test_names_in_comments_stay_in_them_too(tmp_path: Path) -> None:
    log = [{"user_id": f"u{n}", "item_id": f"i{n % 2}", "event_at": "2026-03-01T00:00:00Z"} for n in range(4)]
    write_jsonl(tmp_path / "raw" / "a.jsonl", log)
    write_jsonl(tmp_path / "raw" / "other" / "b.jsonl", [{"x\nstart_date = 1999-01-01\n": 1, "y\u2028\x85\x1f": 2}])
    out = tmp_path / "mine.toml"
    assert main(["init", str(tmp_path / "raw"), "--out", str(out)]) == 0
    assert load_config(out).start_date == date(2026, 3, 1)
    assert "# not read: other" in out.read_text()


@pytest.mark.parametrize(
    ("names", "others", "path"),
    [
        (["a.csv", "b.csv"], ["manifest.json"], "log/*.csv"),
        (["a.csv", "b.csv"], [], "log"),
        (["events-1.csv", "events-10.csv", "events-2.csv"], ["items.csv"], "log/events-*"),
        (["e1.csv.gz", "e2.csv.gz"], ["x.txt"], "log/e*"),
        (["x#1.csv", "x#2.csv", "y [a].csv"], ["z.json"], "log/*.csv"),
    ],
)
def test_the_path_names_all_files_and_no_others(tmp_path: Path, names: list[str], others: list[str], path: str) -> None:
    text = "user_id,item_id,event_at\n" + "".join(f"u{n},i{n % 2},2026-03-01T00:00:00Z\n" for n in range(4))
    folder = tmp_path / "raw" / "log"
    folder.mkdir(parents=True)
    for name in names:
        packed = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
        (folder / name).write_bytes(packed)
    for name in others:
        (folder / name).write_text("{}")
    out = tmp_path / "mine.toml"
    assert main(["init", str(tmp_path / "raw"), "--out", str(out)]) == 0
    config = load_config(out)
    assert config.interactions.path == path
    assert sorted(Known("interactions", config).names()) == sorted(f"log/{n}" for n in names)


def test_events_of_a_log_without_a_header_are_found(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    events = ("view", "add_to_cart", "purchase")
    lines = [f"u{n % 5},i{n % 4},{events[n % 3]},2026-03-0{1 + n % 3} 10:00:00\n" for n in range(40)]
    (tmp_path / "raw" / "log.csv").write_text("".join(lines))
    out = tmp_path / "mine.toml"
    assert main(["init", str(tmp_path / "raw"), "--out", str(out)]) == 0
    columns = {"user_id": "1", "item_id": "2", "event": "3", "event_at": "4"}
    assert dict(load_config(out).interactions.columns) == columns


def test_a_catalogue_with_a_row_a_category_is_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = [{"user_id": f"u{n}", "item_id": f"i{n % 2}", "event": "view", "event_at": "2026-03-01T00:00:00Z"} for n in range(4)]  # noqa: E501 # fmt: skip
    write_jsonl(tmp_path / "raw" / "interactions" / "a.jsonl", log)
    rows = [{"item_id": i, "title": i, "categories": [c]} for i, c in (("i0", "a"), ("i0", "b"), ("i1", "a"))]
    write_jsonl(tmp_path / "raw" / "items" / "a.jsonl", rows)
    config = tmp_path / "mine.toml"
    config.write_text('start_date = 2026-03-01\n[paths]\nraw = "raw"\ndata = "data"\n')
    assert main(["check", "--config", str(config), "--json"]) == 0
    (remark,) = json.loads(capsys.readouterr().out)["remarks"]
    assert "1 of 3 rows looked at repeat an item_id, such as 'i0'" in remark
    assert main(["check", "--config", str(config)]) == 0
    assert "remark:" in capsys.readouterr().out


def test_events_that_are_truths_are_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"user_id": f"u{n}", "item_id": "i", "event": n % 2 == 0, "event_at": "2026-03-01T00:00:00Z"} for n in range(4)]  # noqa: E501 # fmt: skip
    write_jsonl(tmp_path / "raw" / "interactions" / "a.jsonl", lines)
    write_jsonl(tmp_path / "raw" / "items" / "a.jsonl", [{"item_id": "i", "title": "x"}])
    config = tmp_path / "mine.toml"
    config.write_text('start_date = 2026-03-01\n[paths]\nraw = "raw"\ndata = "data"\n')
    main(["check", "--config", str(config), "--json"])
    assert any("events are named" in r for r in json.loads(capsys.readouterr().out)["remarks"])


def test_deep_finds_bytes_that_changed_in_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.raw.known import Known

    raw, out = shop(tmp_path), tmp_path / "mine.toml"
    main(["init", str(raw), "--out", str(out)])
    Known("interactions", load_config(out)).pieces(date(2026, 3, 3))
    path = raw / "sales" / "export.csv"
    stat, data = path.stat(), path.read_bytes()
    path.write_bytes(data.replace(b"u0;", b"u9;"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    capsys.readouterr()
    assert main(["check", "--config", str(out), "--json"]) == 0
    capsys.readouterr()
    assert main(["check", "--config", str(out), "--json", "--deep"]) == 1
    assert "sales/export.csv: other bytes" in json.loads(capsys.readouterr().out)["problems"][0]

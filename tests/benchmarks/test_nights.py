"""Nights one after another: who is judged by what, by hand."""

import json
from pathlib import Path

import pytest

from benchmarks import nights

pytestmark = pytest.mark.slow


def test_nights_are_run_and_judged_by_the_day_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the second day ten users like `hot`, on the third the ten others do; before, everybody likes old things."""
    rows = [f"u{u:02d},i{(u * n) % 7},view,2026-03-01T{u:02d}:0{n}:00Z" for u in range(20) for n in range(1, 6)]
    rows += [f"u{u:02d},hot,view,2026-03-02T{u:02d}:00:00Z" for u in range(10)]
    rows += [f"u{u:02d},hot,view,2026-03-03T{u:02d}:00:00Z" for u in range(10, 20)]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "log.csv").write_text("user_id,item_id,event,event_at\n" + "\n".join(rows) + "\n")
    config = tmp_path / "c.toml"
    config.write_text(
        "start_date = 2026-03-01\nencoders = {}\n[paths]\nraw = 'raw'\ndata = 'data'\n"
        "[interactions]\npath = 'log.csv'\n[recommend]\nk = 20\nmodels = ['popularity', 'item_cf', 'hybrid']\n"
    )
    arguments = ["nights", "--config", str(config), "--from", "2026-03-02", "--to", "2026-03-03", "--json"]
    monkeypatch.setattr("sys.argv", arguments)
    nights.main()
    *lines, gain = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    found = {r["model"]: r for r in lines}
    assert {r["user_days"] for r in lines} == {10}, "those who came to like something on the third day"
    assert found["liked in 1 day"]["ndcg@20"] == found["liked in 1 day"]["recall@20"] == 1
    assert {
        "hybrid",
        "hybrid without facts",
        "popularity",
        "item_cf",
        "liked in 7 days",
        "liked in 30 days",
    } < found.keys()
    assert 0 < found["popularity"]["ndcg@20"] <= 1
    assert [r["ndcg@20"] for r in lines] == sorted((r["ndcg@20"] for r in lines), reverse=True), "the best first"
    assert gain["hybrid_over"] == next(r["model"] for r in lines if not r["model"].startswith("hybrid"))
    nights.main()
    assert capsys.readouterr().out.splitlines()[-len(lines) - 1 :] == [json.dumps(r) for r in (*lines, gain)]

"""Reasons that are true: the item falls further without what its reason names."""

import json
from pathlib import Path

import numpy as np
import pytest

from assets.cli import main as nightloom
from benchmarks import reasons

pytestmark = pytest.mark.slow


def test_items_fall_without_what_their_reasons_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sixty users of three tastes with ten items each, and five of another taste that say little of the list."""
    rng, rows = np.random.default_rng(0), []
    for user in range(60):
        own, other = rng.choice(20, 10, replace=False) + 20 * (user % 3), rng.choice(20, 5, replace=False)
        for n, item in enumerate([*own, *(other + 20 * ((user + 1) % 3))]):
            rows.append(f"u{user:02d},i{item:02d},view,2026-03-01T{n:02d}:{user:02d}:00Z")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "log.csv").write_text("user_id,item_id,event,event_at\n" + "\n".join(rows) + "\n")
    config = tmp_path / "c.toml"
    config.write_text(
        "start_date = 2026-03-01\nencoders = {}\n[paths]\nraw = 'raw'\ndata = 'data'\n"
        "[interactions]\npath = 'log.csv'\n[recommend]\nmodels = ['item_cf', 'ease']\nserve = 'item_cf'\n"
    )
    assert nightloom(["run", "--config", str(config), "--date", "2026-03-01"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["reasons", "--config", str(config), "--date", "2026-03-01", "--json"])
    reasons.main()
    true, cost = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert (true["figure"], true["goal"]) == ("reasons that are true", 0.8)
    assert true["value"] > 0.9, "item-CF says itself which items it is by"
    assert cost["value"] > 0

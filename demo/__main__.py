"""`make demo`: generate the shop, run its nights through the Dagster job, print what was made and how good it is."""

import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from assets.resources import lake_of
from assets.runs import run_nights
from demo.shop import Size, generate
from pipelines.config import ConfigError, config_path, load_config
from pipelines.lake.schemas import EVERYONE
from pipelines.lake.storage import Lake
from pipelines.lake.tables import TABLES
from pipelines.verify import verify

NIGHTS = 4  # of the demo's ten; the first of them makes the std tables of the earlier days


def main() -> int:
    """Run the demo; the exit code is that of its nights."""
    started = time.monotonic()
    path = config_path()
    config = load_config(path)
    days = (config.end_date or config.start_date) - config.start_date
    generate(Path(config.paths.raw), config.start_date, Size(days=days.days + 1))
    print(f"shop:   {config.paths.raw}\nconfig: {path}\n", flush=True)
    try:
        verify(config, str(path))
    except ConfigError as e:
        print(e, file=sys.stderr)
        return 2
    last = config.end_date or config.start_date
    code = run_nights(config, path, [last - timedelta(days=n) for n in reversed(range(NIGHTS))])
    if code:
        return code
    report(lake_of(config), last)
    print(f"\ndone in {time.monotonic() - started:.0f} s. Next:")
    print("  make ui                                   # the graph, runs, plots: http://127.0.0.1:3000")
    print(f"  .venv/bin/nightloom backfill --from {config.start_date} --to {config.start_date + timedelta(days=2)}")
    query = f"FROM '{lake_of(config).root}/recommendations/*/*.parquet' LIMIT 10"
    print(f'  .venv/bin/python -c "import duckdb; print(duckdb.sql(\\"{query}\\"))"')
    return 0


def report(lake: Lake, day: date) -> None:
    """Tables, metrics of all recommenders, lists of five users."""
    print("tables")
    for name in TABLES:
        days = lake.days(name)
        rows = sum(lake.rows(name, d) for d in days)
        print(f"  {str(lake.root / name):60s} {len(days):3d} partitions {rows:8d} rows")
    print(f"\nmetrics: lists of each night judged by the next day, mean of {NIGHTS - 1} days (slice all)")
    heads = ("recall@10", "ndcg@10", "map@10", "hit@10", "recall@20", "coverage", "novelty")
    print(f"  {'model':12s} " + " ".join(f"{h:>9s}" for h in heads))
    for row in _metrics(lake):
        print(f"  {row[0]:12s} " + " ".join(f"{v:9.4f}" for v in row[1:]))
    print(f"\nrecommendations for {day + timedelta(days=1)}")
    for user, lines in _lists(lake, day).items():
        print(f"  {user}" + ("  (everyone without a list of their own)" if user == EVERYONE else ""))
        for line in lines:
            print(f"    {line}")


def _metrics(lake: Lake) -> list[tuple[Any, ...]]:
    wanted = [
        ("recall", 10),
        ("ndcg", 10),
        ("map", 10),
        ("hit_rate", 10),
        ("recall", 20),
        ("coverage", 10),
        ("novelty", 10),
    ]
    columns = ", ".join(f"avg(value) FILTER (metric = '{m}' AND k = {k})" for m, k in wanted)
    source = f"{lake.root}/eval_offline/*/*.parquet"
    query = f"SELECT model, {columns} FROM '{source}' WHERE slice = 'all' GROUP BY model ORDER BY 3"  # noqa: S608, all names are ours
    with duckdb.connect() as con:
        return con.execute(query).fetchall()


def _lists(lake: Lake, day: date) -> dict[str, list[str]]:
    titles = lake.read("std_items", day, ["item_id", "title"]).to_pylist()
    title = {r["item_id"]: r["title"] for r in titles}
    rows = lake.read("recommendations", day).to_pylist()
    users = sorted({r["user_id"] for r in rows})
    chosen = [
        EVERYONE,
        *[u for u in users if u.startswith("N")][:1],
        *[u for u in users if u.startswith("U")][:3],
    ]
    out: dict[str, list[str]] = {u: [] for u in chosen}
    for r in rows:
        if r["user_id"] in out and r["rank"] <= 3:
            because = ", ".join(title.get(i) or i for i in r["reason_item_ids"])
            why = (
                f"{r['reason_code']}"
                + (f": {because}" if because else "")
                + (f" ({r['reason_modality']})" if r["reason_modality"] else "")
            )
            out[r["user_id"]].append(f"{r['rank']}. {title[r['item_id']] or r['item_id']:28s} {r['score']:6.2f}  {why}")
    return out


if __name__ == "__main__":
    sys.exit(main())

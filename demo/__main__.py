"""`make demo [DOMAIN=news]`: generate the shop, run its nights through the Dagster job, print what was made.

Between the nights the shop's users react to their lists, one hides an item, and robots spoil the log of the last day.
"""

import sys
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from assets.runs import run_nights
from demo.crowd import BAD_EVENTS, bad_day, hide, react
from demo.shop import HABITS, Habits, Size, generate
from pipelines.config import Config, ConfigError, config_path, load_config
from pipelines.lake.schemas import EVERYONE
from pipelines.lake.storage import Lake
from pipelines.lake.tables import TABLES
from pipelines.verify import verify

NIGHTS = 4  # of the demo's ten; the first of them makes the std tables of the earlier days


def main() -> int:
    """Run the demo; the exit code is that of its nights."""
    started = time.monotonic()
    kind = next(iter(sys.argv[1:]), "")
    if kind and kind not in HABITS:
        print(f"DOMAIN={kind} is no kind of house; known are {', '.join(HABITS)}", file=sys.stderr)
        return 2
    path = config_of(kind) if kind else config_path()
    config = load_config(path)
    days = (config.end_date or config.start_date) - config.start_date
    habits = HABITS[kind or "ecommerce"]
    generate(Path(config.paths.raw), config.start_date, Size(days=days.days + 1), habits=habits)
    print(f"shop:   {config.paths.raw}\nconfig: {path}\n", flush=True)
    try:
        verify(config, str(path))
    except ConfigError as e:
        print(e, file=sys.stderr)
        return 2
    last = config.end_date or config.start_date
    code = nights(config, path, [last - timedelta(days=n) for n in reversed(range(NIGHTS))], habits)
    if code:
        return code
    report(Lake.of(config), last)
    print_feedback(Lake.of(config), last)
    print(f"\ndone in {time.monotonic() - started:.0f} s. Next:")
    print("  .venv/bin/nightloom report --open         # the page of the latest night")
    print("  make ui                                   # the graph, runs, plots: http://127.0.0.1:3000")
    print(f"  .venv/bin/nightloom backfill --from {config.start_date} --to {config.start_date + timedelta(days=2)}")
    query = f"FROM '{Lake.of(config).root}/recommendations/*/*.parquet' LIMIT 10"
    print(f'  .venv/bin/python -c "import duckdb; print(duckdb.sql(\\"{query}\\"))"')
    return 0


def config_of(kind: str) -> Path:
    """The demo's configuration for a kind of house, written beside its data."""
    text = config_path().read_text().replace("data/demo", ".").replace("[paths]", f'domain = "{kind}"\n\n[paths]', 1)
    if not HABITS[kind].sound:
        text = text.replace(', audios = "sound"', "")
    if not HABITS[kind].clip_every:
        text = text.replace(', videos = "clip"', "")
    path = Path("data") / f"demo-{kind}" / "nightloom.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path.resolve()


def nights(config: Config, path: Path, days: list[date], habits: Habits) -> int:
    """Run nights one after another while users react to the lists of each; the exit code of the first that fails.

    On the third night a user hides the first item of their list. The log of the last day is spoiled first, so that its
    night stops, and is then mended.
    """
    raw, lake = Path(config.paths.raw), Lake.of(config)
    for n, day in enumerate(days):
        if n:
            views = react(raw, lake, days[n - 1], habits)
            print(f"{day}: users look at their lists and view {views} of the items", flush=True)
        if n == 2:
            user, item = first_place(lake, days[n - 1])
            hide(raw, user, item, day)
            print(f"{day}: {user} hides {item}, the first of the list", flush=True)
        if n and day == days[-1]:
            spoiled = bad_day(raw, day)
            print(f"{day}: robots buy one item {BAD_EVENTS:,} times", flush=True)
            run_nights(config, path, [day])
            spoiled.unlink()
            print(f"{day}: their log is taken away, and the night runs again", flush=True)
        code = run_nights(config, path, [day])
        if code:
            return code
    return 0


def first_place(lake: Lake, night: date) -> tuple[str, str]:
    """A user with a list of their own, and its first item."""
    rows = lake.read("recommendations", night, ["user_id", "rank", "item_id"]).to_pylist()
    return next((r["user_id"], r["item_id"]) for r in rows if r["rank"] == 1 and r["user_id"].startswith("U"))


def print_feedback(lake: Lake, last: date) -> None:
    """Views a user by night and arm, and what was decided of the experiments."""
    print("\nviews a user and day, by the arm of experiment lists")
    for night, means in views_by_arm(lake, last).items():
        print(f"  lists of {night}: " + ", ".join(f"{arm} {mean:.2f}" for arm, mean in sorted(means.items())))
    print("\nexperiments")
    for row in lake.read("eval_experiments", last).to_pylist():
        if row["effect"] is not None:
            print(f"  {row['experiment']:8s} {row['decision']:10s} on {row['decided_on']}: {row['reason']}")


def views_by_arm(lake: Lake, last: date) -> dict[date, dict[str, float]]:
    """Night -> arm of the experiment -> views a user who was served; ``all`` where nothing is compared."""
    found: dict[date, dict[str, float]] = {}
    for day in lake.days("feedback", last):
        rows = lake.read("feedback", day, ["night", "arm", "clicked"]).to_pylist()
        if not rows:
            continue
        night = rows[0]["night"]
        served = lake.read("recommendations", night, ["user_id", "arm"]).group_by(["user_id", "arm"]).aggregate([])
        users = Counter(_arm(label) for label in served["arm"].to_pylist())
        views = Counter(_arm(r["arm"]) for r in rows if r["clicked"])
        found[night] = {arm: views[arm] / n for arm, n in users.items() if n > len(users)}
    return found


def _arm(label: str) -> str:
    """Arm of experiment ``lists`` in a label of ``recommendations.arm``."""
    return next((p.removeprefix("lists=") for p in label.split(";") if p.startswith("lists=")), "all")


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

"""`python -m demo.domains`: two domains in one shop, of which one opens three days before the end.

A third of the demo's items become a domain of its own, which nobody could view before it opened. The same nights are
run with ``recommend.pool_domains`` and without. Printed is how good the hybrid's lists are for the views of the day
after in each domain, and what its weights depend on.
"""

import io
import json
import shutil
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from datetime import date, timedelta
from pathlib import Path

from assets.cli import main as nightloom
from demo.shop import Size, generate
from pipelines.lake.cards import load_card
from pipelines.lake.storage import Lake

OLD, NEW = "prints", "postcards"
FIRST, DAYS, OPENED = date(2026, 3, 1), 10, 3
NIGHTS = [FIRST + timedelta(days=n) for n in range(DAYS - OPENED, DAYS)]
ROOT = Path("data") / "domains"
CONFIG = """
start_date = 2026-03-01
[paths]
raw = "../raw"
data = "."
[interactions]
columns = {{ user_id = "uid", event_at = "ts", value = "amount" }}
[items]
columns = {{ title = "name", description = "about" }}
[encoders.text]
model = "minilm"
[recommend]
new_items = 0
{pool}
"""
HOUSES = {"apart": "", "pooled": "pool_domains = true"}


def main(root: Path = ROOT) -> int:
    """Make the shop, run its nights both ways, print; the exit code of the first night that fails."""
    started = time.monotonic()
    shutil.rmtree(root, ignore_errors=True)
    prepared(root)
    for house in HOUSES:
        for day in NIGHTS:
            command = ["run", "--config", str(root / house / "nightloom.toml"), "--date", str(day)]
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
                code = nightloom(command)
            if code:
                print(said.getvalue(), file=sys.stderr)
                return code
        print(f"{len(NIGHTS)} nights were run {house}: {root / house / 'nightloom.toml'}", flush=True)
    report(root)
    print(f"\ndone in {time.monotonic() - started:.0f} s")
    return 0


def prepared(root: Path) -> None:
    """The raw folder of both, and their configurations."""
    generate(root / "shop", FIRST, Size(users=200, days=DAYS, events_per_user_day=3.0))
    raw = root / "raw"
    (raw / "interactions").mkdir(parents=True)
    (raw / "items").mkdir()
    rows = [
        json.loads(line)
        for line in (root / "shop" / "items" / "catalogue.jsonl").read_text().splitlines()
        if line.endswith("}")
    ]
    rows = [r | {"domain": domain_of(r["item_id"])} for r in rows if r["item_id"].startswith("I")]
    (raw / "items" / "catalogue.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for path in sorted((root / "shop" / "interactions").glob("*.csv")):
        head, *lines = path.read_text().splitlines()
        item, opened = head.split(",").index("item_id"), path.stem[-10:] >= str(NIGHTS[0])
        kept = [line for line in lines if opened or domain_of(line.split(",")[item]) == OLD]
        (raw / "interactions" / path.name).write_text("\n".join([head, *kept]) + "\n")
    for house, pool in HOUSES.items():
        (root / house).mkdir()
        (root / house / "nightloom.toml").write_text(CONFIG.format(pool=pool))


def domain_of(item_id: str) -> str:
    """Every third item is of the new domain; themes have nothing to do with it."""
    return NEW if item_id[1:].isdigit() and int(item_id[1:]) % 3 == 0 else OLD


def report(root: Path) -> None:
    """NDCG@10 of the hybrid by domain and day, and the standard deviations of its weights."""
    print(f"\nNDCG@10 of the hybrid by the views of the day after; {NEW} opened on {NIGHTS[0]}")
    for day in NIGHTS[1:]:
        for named, slice_of in (("all", "all"), (OLD, f"domain={OLD}"), (NEW, f"domain={NEW}")):
            values = [f"{house} {_ndcg(root / house, day, slice_of):.4f}" for house in HOUSES]
            print(f"  lists of {day - timedelta(days=1)}  {named:10s} {'   '.join(values)}")
    card = load_card(Lake(root / "pooled" / "lake"), "hybrid", NIGHTS[-1])
    print(f"\nwhat the weights of {NIGHTS[-1]} depend on, and what that gains on the last days:")
    for name, found in card["validation"]["warm"]["pooled"].items():
        print(f"  {name:10s} {json.dumps(found)}")


def _ndcg(folder: Path, day: date, slice_of: str) -> float:
    rows = Lake(folder / "lake").read("eval_offline", day).to_pylist()
    wanted = {"model": "hybrid", "metric": "ndcg", "k": 10, "slice": slice_of}
    return next((float(r["value"]) for r in rows if wanted.items() <= r.items()), float("nan"))


if __name__ == "__main__":
    sys.exit(main())

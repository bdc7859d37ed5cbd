"""`python -m demo.sites`: three sites and a hub in four folders share sums over their users, and no logs.

The demo's shop is split by user into three sites, of which each has a raw folder, a lake and an exchange in common.
Four nights: the first offers items, the second leaves masked sums, the third makes lists of the sums of all, and the
fourth judges them. Printed is what the hub said, and how good the lists of each site are by what its users view the day
after, beside those of the same site alone.
"""

import io
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import date, timedelta
from pathlib import Path

from assets.cli import main as nightloom
from demo.shop import Size, generate
from pipelines.lake.storage import Lake

SITES = ("berlin", "paris", "rome")
FIRST, DAYS = date(2026, 3, 1), 8
NIGHTS = [FIRST + timedelta(days=n) for n in range(DAYS - 4, DAYS)]
ROOT = Path("data") / "sites"
CONFIG = """
start_date = 2026-03-01
encoders = {{}}
[paths]
raw = "raw"
data = "data"
[interactions]
columns = {{ user_id = "uid", event_at = "ts", value = "amount" }}
[items]
columns = {{ title = "name", description = "about" }}
[recommend]
models = ["popularity", "item_cf", "ease"]
serve = "ease"
{federate}
"""
SITE = '[federate]\nrole = "site"\nname = "{name}"\nsites = {sites}\nexchange = "{exchange}"\n'
HUB = '[federate]\nrole = "hub"\nsites = {sites}\nexchange = "{exchange}"\n'


def main(root: Path = ROOT) -> int:
    """Make the sites, run their nights and the hub, print; the exit code of the first night that fails."""
    started = time.monotonic()
    shutil.rmtree(root, ignore_errors=True)
    configs = prepared(root)
    hub = root / "hub.toml"
    for day in NIGHTS:
        alone = [f"{s}-alone" for s in SITES] if day in NIGHTS[-2:] else []
        for name in (*SITES, *alone):
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
                code = nightloom(["run", "--config", str(configs[name]), "--date", str(day)])
            if code:
                print(said.getvalue(), file=sys.stderr)
                return code
        print(f"{day}: the nights of {len(SITES) + len(alone)} houses were run; the hub:", flush=True)
        nightloom(["hub", "--config", str(hub), "--date", str(day)])
    report(root)
    print(f"\ndone in {time.monotonic() - started:.0f} s")
    return 0


def prepared(root: Path) -> dict[str, Path]:
    """Raw folders and configurations of the sites, each once with the others and once alone, and of the hub."""
    generate(root / "shop", FIRST, Size(users=150, days=DAYS, events_per_user_day=2.5))
    of_sites = {name: (lambda user, n=n: int(user[1:]) % len(SITES) == n) for n, name in enumerate(SITES)}
    facts = {"sites": str(list(SITES)).replace("'", '"'), "exchange": str((root / "exchange").resolve())}
    configs = {}
    for name, keeps in of_sites.items():
        for folder, section in ((name, SITE.format(name=name, **facts)), (f"{name}-alone", "")):
            configs[folder] = root / folder / "nightloom.toml"
            split(root / "shop", root / folder / "raw", keeps)
            configs[folder].write_text(CONFIG.format(federate=section))
    (root / "hub.toml").write_text(CONFIG.format(federate=HUB.format(**facts)))
    return configs


def split(shop: Path, raw: Path, keeps: Callable[[str], bool]) -> None:
    """Write the catalogue, and the log of some users."""
    (raw / "interactions").mkdir(parents=True)
    shutil.copytree(shop / "items", raw / "items")
    for path in sorted((shop / "interactions").glob("*.csv")):
        head, *lines = path.read_text().splitlines()
        mine = [line for line in lines if line.startswith("U") and keeps(line.split(",")[0])]
        (raw / "interactions" / path.name).write_text("\n".join([head, *mine]) + "\n")


def report(root: Path) -> None:
    """NDCG@10 of EASE on the last night, whose lists are of the night before; and who is in the sums."""
    print("\nsites in the sums, and NDCG@10 of EASE of the sums and of the site alone")
    last = NIGHTS[-1]
    for name in SITES:
        lake = Lake(root / name / "data" / "lake")
        rows = lake.read("fed_stats", last).to_pylist()
        summed = [r["site"] for r in rows if r["used"] and r["state"] == "summed"]
        together, alone = (_ease(root / folder, last) for folder in (name, f"{name}-alone"))
        print(f"  {name:8s} {', '.join(summed):22s} {together:.4f} {alone:.4f}")


def _ease(folder: Path, day: date) -> float:
    rows = Lake(folder / "data" / "lake").read("eval_offline", day).to_pylist()
    wanted = {"model": "ease", "metric": "ndcg", "k": 10, "slice": "all"}
    return next((float(r["value"]) for r in rows if wanted.items() <= r.items()), float("nan"))


if __name__ == "__main__":
    sys.exit(main())

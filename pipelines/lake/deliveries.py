"""What became of what comes from outside, in words and as promises: lists of others, sums of other sites, triples.

Does not belong here: finding and reading them (``pipelines.external``, ``federate``, ``knowledge``).
"""

from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import Config
from pipelines.lake.promises import Remark, promise
from pipelines.sections import External

if TYPE_CHECKING:
    from pipelines.night.night import Night

USED, LATE, STALE, MISSING = "used", "late", "stale", "missing"


def said(name: str, spec: dict[str, Any], settings: External, day: date) -> str:
    """Why somebody's lists are left out, and what is expected."""
    where = f"recommend.external.{name}: {settings.path}"
    if spec["state"] == MISSING:
        return f"{where} has no Parquet file; its lists are left out"
    if spec["state"] == LATE:
        return f"{where} has lists from {spec['delivered']} on, none up to {day}; left out"
    most = f"more than max_age_days ({settings.max_age_days})"
    return f"{where}: the newest lists are of {spec['delivered']}, {most} before {day}; left out"


@promise(["external_lists"], "Every name of recommend.external has lists that are not too old.", [])
def lists_are_delivered(config: Config, night: "Night", table: str, _: pa.Table) -> list[str]:
    """Names whose lists are late, stale or missing, so that they are left out; numbers are ages in days."""
    remarks, spec = [], night.lake.require(table, night.day).spec
    for name, settings in config.recommend.external.items():
        found = spec.get(name, {"state": "missing", "delivered": "None"})
        used = found["state"] == USED
        age = (
            {}
            if found["delivered"] == "None"
            else {name: float((night.day - date.fromisoformat(found["delivered"])).days)}
        )
        remarks.append(Remark("" if used else said(name, found, settings, night.day), warns=not used, numbers=age))
    return list(remarks)


@promise(["external_lists"], "Rows in = rows out + quarantined.", ["model"])
def delivered_rows_accounted(_config: Config, night: "Night", table: str, rows: pa.Table) -> list[str]:
    """Rows of deliveries that are neither in the table nor in the quarantine."""
    counters = night.lake.require(table, night.day).counters
    rejects = night.lake.read("quarantine", night.day, ["stage", "position"])
    mine = pc.and_(pc.equal(rejects["stage"], table), pc.greater(rejects["position"], 0))
    quarantined, read = pc.sum(mine).as_py() or 0, counters["in"]
    same = read == rows.num_rows + quarantined and quarantined == counters["quarantined"]
    return [] if same else [f"in {read}, out {rows.num_rows} + quarantined {quarantined}"]


@promise(
    ["fed_stats"], "Every site is in the sums that the night's recommenders are made of.", ["site", "state", "used"]
)
def sites_are_summed(config: Config, _night: "Night", _table: str, rows: pa.Table) -> list[str]:
    """Sites that the used sums go without; with ``missing = "stop"`` that stops the night."""
    used = rows.filter(rows["used"])
    missing = used.filter(pc.equal(used["state"], "missing"))["site"].to_pylist()
    numbers = {"sites": float(len(used) - len(missing))}
    if not missing:
        return [
            Remark("" if len(used) else "there is no sum of sites yet; this night is of its own log", numbers=numbers)
        ]
    said_of = f"the sums of the sites go without {', '.join(sorted(missing))}"
    if config.federate and config.federate.missing == "stop":
        return [f"{said_of}; run their nights and the hub, or set federate.missing = go_on"]
    return [Remark(said_of, warns=True, numbers=numbers)]


@promise(["item_graphs"], "The triples of every graph were read, and are of items of the catalogue.", [])
def graphs_are_read(config: Config, night: "Night", table: str, _: pa.Table) -> list[str]:
    """Graphs whose file is refused or that knows no two items that share anything; numbers are items of each."""
    spec, remarks = night.lake.require(table, night.day).spec, list[str]()
    for name, settings in config.graphs.items():
        found = spec.get(name)
        number = {name: float(found["items"]) if found else 0.0}
        where = f"graphs.{name}: {settings.triples}"
        if found is None:
            remarks.append(Remark(f"{where} could not be read, see table quarantine", warns=True, numbers=number))
        elif not found["items"]:
            said_of = f"{where}: of its {found['triples']} triples none says what two items of the catalogue share"
            remarks.append(Remark(f"{said_of}; heads or tails have to be item ids, or set links", True, number))
        else:
            remarks.append(Remark("", numbers=number))
    return remarks

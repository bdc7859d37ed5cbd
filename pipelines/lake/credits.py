"""Who of the recommenders is retired, as an earlier night has decided. Does not belong here: deciding (``credit``)."""

from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.storage import Lake

RETIRE, RETIRED, MORE, KEEP = "retire", "retired", "more", "keep"


def retired_by(lake: Lake, day: date) -> list[str]:
    """Recommenders that the latest night up to a day has retired, in order of name."""
    nights = lake.days("eval_credit", day)
    if not nights:
        return []
    rows = lake.read("eval_credit", nights[-1], ["model", "decision"])
    mine = rows.filter(pc.is_in(rows["decision"], pa.array([RETIRE, RETIRED])))
    return sorted(mine["model"].to_pylist())

"""What an earlier night has decided of the recommenders. Does not belong here: deciding (``credit``)."""

from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.storage import Lake

RETIRE, RETIRED, MORE, KEEP = "retire", "retired", "more", "keep"


def retired_by(lake: Lake, day: date) -> list[str]:
    """Recommenders that the latest night up to a day has retired, in order of name."""
    return _decided(lake, day, RETIRE, RETIRED)


def trusted_by(lake: Lake, day: date) -> list[str]:
    """Recommenders that the latest night up to a day has proposed for more places, in order of name."""
    return _decided(lake, day, MORE)


def _decided(lake: Lake, day: date, *decisions: str) -> list[str]:
    nights = lake.days("eval_credit", day)
    if not nights:
        return []
    rows = lake.read("eval_credit", nights[-1], ["model", "decision"])
    mine = rows.filter(pc.is_in(rows["decision"], pa.array(decisions)))
    return sorted(mine["model"].to_pylist())

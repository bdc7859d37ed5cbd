"""`python -m benchmarks.dials --config FILE --date NIGHT --until DAY [--json]`: what dials cost, and what is free.

The lists of a night at each setting of each dial, the others at 0, judged by what users came to like until a later day.
A figure a dial: the largest setting up to which NDCG never falls, and NDCG there against the plain lists.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.figures import Figure, show
from benchmarks.nights import liked_later, two_nights
from pipelines.config import load_config
from pipelines.lake.storage import Lake
from pipelines.night.dials import free_settings
from pipelines.night.files import opened
from pipelines.night.judgement import categories_of
from pipelines.sections import Dials
from pipelines.tradeoff import settings_judged, some_of


def main() -> None:
    """Print the curves, then a figure a dial."""
    args = two_nights(__doc__).parse_args()
    config = load_config(args.config)
    lake = Lake.of(config)
    with opened(config, lake, args.date) as night:
        later = some_of(liked_later(config, lake, args.date, args.until), night)
        shares = categories_of(lake.read("std_items", args.date))[1]
        rows = settings_judged(night, replace(later, vectors=night.inputs.fused, categories=shares), config)
    if not args.json:
        _print_curves(rows)
    show(figures(rows), args.json)


def _print_curves(rows: list[dict[str, Any]]) -> None:
    metrics = list(dict.fromkeys(r["metric"] for r in rows))
    print(f"{'dial':12s} {'setting':>7s} " + " ".join(f"{m:>15s}" for m in metrics))
    values = {(r["dial"], r["setting"], r["metric"]): r["value"] for r in rows}
    for dial, setting in dict.fromkeys((r["dial"], r["setting"]) for r in rows):
        numbers = " ".join(f"{values.get((dial, setting, m), float('nan')):15.4f}" for m in metrics)
        print(f"{dial:12s} {setting:7.1f} {numbers}")


def figures(rows: list[dict[str, Any]]) -> Iterator[Figure]:
    """NDCG at the largest free setting of each dial, as a ratio to the plain lists."""
    free = free_settings(rows)
    for dial in Dials.model_fields:
        setting, gains = free.get(dial, (0.0, {"ndcg": (1.0, 1.0)}))
        plain, value = gains["ndcg"]
        yield Figure(f"{dial} is free up to {setting:g}", value, "NDCG", "plain lists", value / plain, 1.0, "higher")


if __name__ == "__main__":
    main()

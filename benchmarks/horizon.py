"""`python -m benchmarks.horizon --config FILE --date NIGHT [--json]`: a night's lists judged by all that came after it.

The night must have been run, and a later one, whose run brings the events between. Full ranking, seen items left out,
users unknown to the night judged by the list for everyone; slices as in ``eval_offline``.
"""

import json

import pyarrow.compute as pc

from benchmarks.nights import one_night
from pipelines.config import load_config
from pipelines.evaluate import evaluate_model
from pipelines.lake.storage import Lake
from pipelines.night.events import COLUMNS
from pipelines.night.judgement import judge
from pipelines.night.night import Night

SLICES = ("all", "user_warm", "user_cold", "item_warm", "item_cold")


def main() -> None:
    """Print a line a recommender: Recall@20 and NDCG@20 by slice."""
    command = one_night(__doc__)
    args = command.parse_args()
    config = load_config(args.config)
    lake = Lake.of(config)
    later = [d for d in lake.days("std_interactions") if d > args.date]
    if not later:
        raise SystemExit(f"no events after {args.date} in {lake.root}; run a later night first")
    before, after = (
        lake.read_days("std_interactions", days, COLUMNS) for days in (lake.days("std_interactions", args.date), later)
    )
    catalogue = lake.read("std_items", args.date, ["item_id"])["item_id"]
    feedback = Night.of(config, lake, args.date).feedback
    judgement = judge(catalogue, before, after, feedback, config.recommend.filter_seen)
    table = lake.read("reco_candidates", args.date, ["model", "user_id", "rank", "item_id"])
    if not args.json:
        print(f"{len(judgement.users)} users from {later[0]} to {later[-1]}; Recall@20 NDCG@20 (users)")
        print(f"{'':12s} " + " ".join(f"{s:>20s}" for s in SLICES))
    for name in sorted(pc.unique(table["model"]).to_pylist()):
        rows = evaluate_model(name, table.filter(pc.equal(table["model"], name)), judgement, config.recommend.k)
        value = {(r["metric"], r["slice"]): (r["value"], r["n_users"]) for r in rows if r["k"] == 20}
        if args.json:
            found = {f"{m}@20_{s}": round(v, 5) for (m, s), (v, _) in value.items() if m in ("recall", "ndcg")}
            print(json.dumps({"model": name} | found))
            continue
        cells = []
        for part in SLICES:
            (found_share, users), (quality, _) = (value.get((m, part), (0.0, 0)) for m in ("recall", "ndcg"))
            cells.append(f"{found_share:.4f} {quality:.4f} ({users:4d})" if users else "")
        print(f"{name:12s} " + " ".join(f"{c:>20s}" for c in cells))


if __name__ == "__main__":
    main()

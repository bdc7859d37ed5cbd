"""`python -m benchmarks.nights --config FILE --from D --to D [--json]`: nights of a dated log, one after another.

Each night is run through the real tables where it is not there yet (in a data folder of their own: nights that are
made after later ones change what those were fitted on), and its lists are judged by what users did the next day: full
ranking, seen items left out, everyone who came to like something, newcomers by the list for everyone. Beside the
night's recommenders: what was most liked in the last days, and the hybrid without facts about items. Means over user-
days with 95% intervals; the hybrid is also compared with the best single one, user-day by user-day.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from assets.runs import run_nights
from benchmarks.figures import parser
from encoders.device import single_threaded
from pipelines.config import Config, load_config
from pipelines.lake.cards import load_recommenders
from pipelines.lake.schemas import EVERYONE, rows_in
from pipelines.lake.storage import Lake
from pipelines.learning.metrics import PER_USER, hits_of
from pipelines.learning.statistics import mean_and_error
from pipelines.night.events import RECENT_DAYS, Dataset, end_of_day
from pipelines.night.inputs import load_inputs, load_validation
from pipelines.night.judgement import Judgement, judge, lists_of
from pipelines.night.measures import cut
from pipelines.night.night import Night
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.blend.new_items import place_new
from pipelines.recommenders.ranking import top_k

K = 20
METRICS = ("recall", "ndcg")
CERTAIN = 1.96  # standard errors of a 95% interval
Values = dict[str, dict[str, list[np.ndarray]]]  # recommender -> metric -> values of the users of each day


def main() -> None:
    """Run the nights that are missing, judge them, print a line a recommender, the best first."""
    command = parser(__doc__)
    command.add_argument("--config", type=Path, required=True, help="configuration of the lake")
    command.add_argument("--from", dest="first", type=date.fromisoformat, required=True, help="first night")
    command.add_argument(
        "--to", dest="last", type=date.fromisoformat, required=True, help="last night that is judged by"
    )
    args = command.parse_args()
    config = load_config(args.config)
    lake, days = Lake.of(config), [args.first + timedelta(days=n) for n in range((args.last - args.first).days + 1)]
    missing = [d for d in days if lake.manifest("recommendations", d) is None]
    if missing and run_nights(config, args.config, missing):
        raise SystemExit("a night failed; see above")
    values: Values = defaultdict(lambda: {m: [] for m in METRICS})
    for day in days[:-1]:
        judgement = liked_later(config, lake, day, day + timedelta(days=1))
        if len(judgement.users):
            for name, lists in _lists(config, lake, day, judgement):
                hits, number = hits_of(lists, judgement.relevant), np.diff(judgement.relevant.indptr)
                for metric in METRICS:
                    values[name][metric].append(np.asarray(PER_USER[metric](hits, number)))
    _show(values, args.json)


def one_night(doc: str | None) -> argparse.ArgumentParser:
    """Command line of what looks at a night."""
    command = parser(doc)
    command.add_argument("--config", type=Path, required=True, help="configuration of the lake")
    command.add_argument("--date", type=date.fromisoformat, required=True, help="a night that was run")
    return command


def two_nights(doc: str | None) -> argparse.ArgumentParser:
    """Command line of what judges a night by what users came to like until a later one."""
    command = one_night(doc)
    command.add_argument("--until", type=date.fromisoformat, required=True, help="a later night that was run")
    return command


def liked_later(config: Config, lake: Lake, day: date, until: date) -> Judgement:
    """What users came to like after a night, up to the end of a later one."""
    night = Night.of(config, lake, until)
    events = night.events()
    end = pa.scalar(end_of_day(day, config.timezone), events.schema.field("event_at").type)
    late = pc.greater_equal(events["event_at"], end)
    catalogue, segments = lake.read("std_items", day, ["item_id"])["item_id"], Night.of(config, lake, day).segments()
    seen = config.recommend.filter_seen
    return judge(catalogue, events.filter(pc.invert(late)), events.filter(late), night.feedback, seen, segments)


def rows_later(
    config: Config, lake: Lake, day: date, until: date, data: Dataset
) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Rows of the users of a night who came to like something until a later one, and what (rows, items)."""
    later = liked_later(config, lake, day, until)
    row = rows_in(later.users, pa.array(data.users, pa.string()))
    return row[row >= 0], later.relevant[row >= 0]


def _lists(config: Config, lake: Lake, day: date, judgement: Judgement) -> Iterator[tuple[str, np.ndarray]]:
    """Name and lists (judged users, ``K``) of each recommender."""
    table = lake.read("reco_candidates", day, ["model", "user_id", "rank", "item_id"])
    for name in sorted(pc.unique(table["model"]).to_pylist()):
        yield name, cut(lists_of(table.filter(pc.equal(table["model"], name)), judgement)[1], K)
    night = Night.of(config, lake, day)
    with single_threaded():
        data, inputs = load_inputs(night, "cpu")
        row = rows_in(judgement.users, pa.array(data.users, pa.string()))
        row = np.where(row >= 0, row, int(np.flatnonzero(data.users == EVERYONE)[0]))
        seen, servable = data.seen()[row] if config.recommend.filter_seen else None, night.servable()
        for days, counts in zip(RECENT_DAYS, inputs.recent.T, strict=True):
            scores = np.where(servable, counts, -np.inf).astype(np.float32)
            yield f"liked in {days} day{'s' * (days > 1)}", top_k(np.tile(scores, (len(row), 1)), K, seen)[0]
        if "hybrid" in config.recommend.models:
            r = config.recommend
            validation = load_validation(night, data, inputs, config.aligner.history, r.filter_seen, r.k)
            models = load_recommenders(lake, day, tuple(m for m in r.models if m != "hybrid"), inputs)
            plain = Hybrid(facts=False).given({m.name: m for m in models})
            plain = plain.fit(replace(inputs, validation=validation))
            scores = np.where(servable, plain.score(inputs, row), -np.inf).astype(np.float32)
            new = servable & (np.asarray(inputs.positives.sum(0)).ravel() == 0)
            ranked = top_k(scores, K, seen)
            if r.new_items and new.any():
                chances = next((m.score(inputs, row) for m in models if m.name == "transfer"), scores)
                ranked = place_new(ranked, scores, chances, new, r.new_items, seen)
            yield "hybrid without facts", ranked[0]


def _show(values: Values, as_json: bool) -> None:
    every = {n: {m: np.concatenate(v) for m, v in by.items()} for n, by in values.items()}
    order = sorted(every, key=lambda n: -every[n]["ndcg"].mean())
    for name in order:
        shown = {m: mean_and_error(every[name][m]) for m in METRICS}
        if as_json:
            found = {f"{m}@{K}": round(mean, 5) for m, (mean, _) in shown.items()}
            print(json.dumps({"model": name, "user_days": len(every[name]["ndcg"])} | found), flush=True)
        else:
            text = "   ".join(f"{m}@{K} {mean:.4f} ± {CERTAIN * error:.4f}" for m, (mean, error) in shown.items())
            print(f"{name:22s} {text}   ({len(every[name]['ndcg'])} user-days)", flush=True)
    single = next((n for n in order if not n.startswith("hybrid")), None)
    if single and "hybrid" in every:
        mean, error = mean_and_error(every["hybrid"]["ndcg"] - every[single]["ndcg"])
        gain = {"hybrid_over": single, f"ndcg@{K}": round(mean, 5), "interval": round(CERTAIN * error, 5)}
        print(json.dumps(gain) if as_json else f"hybrid over {single}: NDCG@{K} {mean:+.4f} ± {CERTAIN * error:.4f}")


if __name__ == "__main__":
    main()

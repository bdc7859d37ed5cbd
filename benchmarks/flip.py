"""`python -m benchmarks.flip [--seeds N] [--json]`: how soon lists follow users whose tastes change all at once.

A made-up house of interactions alone: every user likes one or two themes of items, and finds items by theme and fame.
From one day on everybody likes other themes. The hybrid of each night after that is judged by what users like the next
day, beside the same hybrid that knows nothing of before the change. ``sequential`` is the hybrid's short memory: the
latest items of a history count most. So both are also judged without it, and in the same house without a change.
Means of NDCG@20 over seeds.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.figures import Figure, parser, show
from encoders.device import single_threaded
from pipelines.night.events import Dataset
from pipelines.night.inputs import relevant_after
from pipelines.recommenders.base import Inputs, Recommender, Validation
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.ranking import ndcg_of
from pipelines.recommenders.registry import unfitted

ITEMS, USERS, THEMES, EVENTS = 300, 500, 6, 3.0  # events of a user and day
FLIP, NIGHTS = 6, 3  # first day of the change, counted from 0, and nights until lists have followed
LONG = ("popularity", "user_cf", "item_cf", "ease", "graph")
BOTH = (*LONG, "sequential")
K, HALF_LIFE_DAYS = 20, 30.0
FOLLOWED, LOST = 0.9, 0.99  # goals: after a change, and of what is lost without one
Log = tuple[np.ndarray, np.ndarray, np.ndarray]  # user, item and time in days of each event


def main() -> None:
    """Print what share of its accuracy a memory of before the change keeps, night by night, and the two controls."""
    command = parser(__doc__)
    command.add_argument("--seeds", type=int, default=4, help="houses, of which each figure is the mean")
    args = command.parse_args()
    with single_threaded():
        show(figures(range(args.seeds)), args.json)


def figures(seeds: range) -> Iterator[Figure]:
    """Accuracy of each night after the change beside a memory that begins with it, then without a change."""
    for name, models in (("", BOTH), ("_without_short_memory", LONG)):
        for night in range(NIGHTS):
            ours, base = (mean(seeds, night, models, since, flips=True) for since in (0, FLIP))
            goal = FOLLOWED if models is BOTH and night == NIGHTS - 1 else None
            of = "the same hybrid fitted on later days alone"
            yield Figure(f"after_{night + 1}_nights{name}", ours, "NDCG@20", of, ours / base, goal, "higher")
    ours, base = (mean(seeds, NIGHTS - 1, models, 0, flips=False) for models in (BOTH, LONG))
    yield Figure("no_change", ours, "NDCG@20", "the same hybrid without sequential", ours / base, LOST, "higher")


def mean(seeds: range, night: int, models: tuple[str, ...], since: float, flips: bool) -> float:
    """Mean NDCG@20 of the hybrid's lists over houses.

    Args:
        seeds: of the houses.
        night: after the change, from 0; its lists are judged by the day after.
        models: that the hybrid combines.
        since: first day that it knows.
        flips: whether there is a change.
    """
    return float(np.mean([accuracy(log_of(s, FLIP + night + 2, flips), FLIP + night, models, since) for s in seeds]))


def log_of(seed: int, days: int, flips: bool) -> Log:
    """Events of a house, oldest first; the themes that a user likes move on by half of all at the change."""
    rng = np.random.default_rng(seed)
    theme, fame = rng.integers(0, THEMES, ITEMS), rng.pareto(3.0, ITEMS) + 0.3
    taste = np.full((USERS, THEMES), 0.02)
    for user in range(USERS):
        taste[user, rng.permutation(THEMES)[: rng.integers(1, 3)]] = 1.0
    log, met = list[tuple[int, int, float]](), np.zeros((USERS, ITEMS), bool)
    for day in range(days):
        liked = np.roll(taste, THEMES // 2, axis=1) if flips and day >= FLIP else taste
        for user in range(USERS):
            weight = liked[user, theme] * fame * ~met[user]
            found = rng.choice(ITEMS, rng.poisson(EVENTS), p=weight / weight.sum(), replace=False)
            met[user, found] = True
            times = day + np.sort(rng.random(len(found)))
            log += zip([user] * len(found), found.tolist(), times.tolist(), strict=True)
    users, items, times = (np.array(column) for column in zip(*sorted(log, key=lambda e: e[2]), strict=True))
    return users, items, times


def accuracy(log: Log, night: int, models: tuple[str, ...], since: float) -> float:
    """NDCG@20 of the hybrid that a night fits on the events since some day, by what users came to like the next day."""
    seen = dataset(log, 0, night + 1).seen()
    relevant, data = relevant_after(dataset(log, 0, night + 2), 1.0, seen), dataset(log, since, night + 1)
    past, inputs = data.before(data.validation_days()), inputs_of(data)
    late = relevant_after(data, data.validation_days(), past.seen())
    inputs = replace(inputs, validation=Validation(data.validation_days(), inputs_of(past), late, past.seen(), K))
    fitted: dict[str, Recommender] = {}
    for model in (*unfitted(models, {}), Hybrid()):
        fitted[model.name] = model.given(fitted).fit(inputs)
    users = np.flatnonzero(np.diff(relevant.indptr))
    scores = fitted["hybrid"].score(inputs, users)
    return float(ndcg_of(scores, relevant[users], seen[users], K, "cpu").mean())


def dataset(log: Log, since: float, until: float) -> Dataset:
    """Events of a span of days."""
    user, item, time = log
    kept = (time >= since) & (time < until)
    users, items = (np.array([f"{n:04d}" for n in range(size)], object) for size in (USERS, ITEMS))
    return Dataset(users, items, user[kept], item[kept], np.ones(kept.sum()), until - time[kept], HALF_LIFE_DAYS)


def inputs_of(data: Dataset) -> Inputs:
    """What recommenders see of some events."""
    positives = data.positives()
    has_signal = np.diff(positives.indptr) > 0
    return Inputs(positives, has_signal=has_signal, histories=data.histories(), recent=data.recent())


if __name__ == "__main__":
    main()

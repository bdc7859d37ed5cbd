"""`python -m benchmarks.team --config FILE --date NIGHT --until DAY [--json]`: what lists of others do to the hybrid.

A night's hybrid is fitted again with lists of a made-up team beside its own recommenders, and judged by what users came
to like until a later day: a team that knows a part of that (each list of 20 has, of what its user will like, up to 3
items, and chance ones), five teams of chance lists, and a team that copies EASE. The same made-up teams have had lists
before the validation days. The night and the later day have to be there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date

import numpy as np
from scipy import sparse

from benchmarks.figures import Figure, show
from benchmarks.nights import rows_later, two_nights
from encoders.device import single_threaded
from pipelines.config import Config, load_config
from pipelines.lake.cards import chosen_settings
from pipelines.lake.storage import Lake
from pipelines.night.inputs import load_inputs, load_validation
from pipelines.night.night import Night
from pipelines.recommenders.base import Inputs, Recommender
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.ranking import ndcg_of, top_k
from pipelines.recommenders.registry import EXTERNAL, entry, merged, unfitted

K, KNOWN, TEAMS = 20, 3, 5
Lists = Mapping[str, sparse.csr_matrix]


class House:
    """A night with what users came to like after it.

    Args:
        config: of the lake.
        lake: where the nights are.
        day: the night.
        until: the later one.
    """

    def __init__(self, config: Config, lake: Lake, day: date, until: date):
        r = config.recommend
        night = Night.of(config, lake, day)
        data, inputs = load_inputs(night, "cpu")
        self.validation = load_validation(night, data, inputs, config.aligner.history, r.filter_seen, r.k)
        self.users, self.relevant = rows_later(config, lake, day, until, data)
        self.inputs, self.seen, self.servable = inputs, data.seen(), night.servable()
        self.names = tuple(n for n in r.models if not n.startswith(EXTERNAL))
        self.settings = merged(self.names, chosen_settings(lake, day), r.settings)

    def accuracy(self, past: Lists, now: Lists) -> tuple[np.ndarray, dict[str, dict[str, float]]]:
        """NDCG@20 of each user (users,) of the hybrid with lists of others, and what each recommender adds."""
        before = replace(self.validation.past, external=dict(past))
        inputs = replace(self.inputs, external=dict(now), validation=replace(self.validation, past=before))
        fitted: dict[str, Recommender] = {}
        for model in unfitted([*self.names, *now], self.settings):
            fitted[model.name] = model.given(fitted).fit(inputs)
        hybrid = Hybrid(credit=True).given(fitted).fit(inputs)
        scores = np.where(self.servable, hybrid.score(inputs, self.users), -np.inf).astype(np.float32)
        found = ndcg_of(scores, self.relevant, self.seen[self.users], K, "cpu")
        return found, hybrid.report["warm"].get("credit", {})

    def of_chance(self, seed: int) -> sparse.csr_matrix:
        """Lists of items that are as good as drawn."""
        rng, shape = np.random.default_rng(seed), self.inputs.positives.shape
        items = np.stack([rng.choice(shape[1], K, replace=False) for _ in range(shape[0])])
        return _places(items, shape)

    def that_knows(self, users: np.ndarray, relevant: sparse.csr_matrix, seed: int) -> sparse.csr_matrix:
        """Lists of chance whose places hold some of what users come to like."""
        rng, lists = np.random.default_rng(seed), self.of_chance(seed).tolil()
        for user, liked in zip(users.tolist(), np.split(relevant.indices, relevant.indptr[1:-1]), strict=True):
            chosen = rng.permutation(liked)[:KNOWN]
            lists[user, chosen] = rng.permutation(np.arange(1, K + 1))[: len(chosen)]
        return lists.tocsr()

    def of_ease(self, inputs: Inputs, seen: sparse.csr_matrix | None) -> sparse.csr_matrix:
        """The lists of EASE."""
        users, model = np.arange(inputs.positives.shape[0]), entry("ease").make(self.settings.get("ease", {}))
        return _places(top_k(model.fit(inputs).score(inputs, users), K, seen)[0], inputs.positives.shape)


def _places(items: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    user, place = np.nonzero(items >= 0)
    return sparse.csr_matrix((place + 1.0, (user, items[user, place])), shape=shape, dtype=np.float32)


def figures(house: House) -> Iterator[Figure]:
    """Accuracy with each kind of team beside that without any, and what the team is credited with."""
    v = house.validation
    voters = np.flatnonzero(np.diff(v.relevant.indptr))
    alone = house.accuracy({}, {})[0].mean()
    junk = {f"{EXTERNAL}junk{n}": (house.of_chance(n), house.of_chance(n + 100)) for n in range(TEAMS)}
    knows = house.that_knows(voters, v.relevant[voters], 1), house.that_knows(house.users, house.relevant, 2)
    copy = house.of_ease(v.past, v.seen), house.of_ease(house.inputs, house.seen)
    for name, teams, goal in (
        ("knows_a_part", {f"{EXTERNAL}oracle": knows}, 1.0),
        ("five_of_chance", junk, 0.995),
        ("copy_of_ease", {f"{EXTERNAL}copy": copy}, 0.995),
    ):
        past, now = ({n: lists[at] for n, lists in teams.items()} for at in (0, 1))
        found, credit = house.accuracy(past, now)
        gains = ", ".join(f"{credit[n]['gain']:+.4f}" for n in teams)
        yield Figure(
            name, float(found.mean()), f"NDCG@{K}", f"no team (credit {gains})", found.mean() / alone, goal, "higher"
        )


def main() -> None:
    """Print a figure a kind of team."""
    args = two_nights(__doc__).parse_args()
    config = load_config(args.config)
    with single_threaded():
        show(figures(House(config, Lake.of(config), args.date, args.until)), args.json)


if __name__ == "__main__":
    main()

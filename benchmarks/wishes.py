"""`python -m benchmarks.wishes --config FILE --date NIGHT --until DAY [--json]`: what less of a category does.

Of every user who came to like something between the night and the day, a category that the served list has twice or
more, drawn at random, is wanted less; the share of places that it keeps, and what that costs in NDCG@K, are held
against the plain lists. It costs more where users want less of what they like most, which is what they have asked for.
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from benchmarks.figures import Figure, show
from benchmarks.nights import liked_later, two_nights
from pipelines.config import Config, load_config
from pipelines.lake.schemas import rows_in
from pipelines.lake.storage import Lake
from pipelines.learning.metrics import hits_of, ndcg
from pipelines.night.files import Loaded, opened
from pipelines.night.judgement import Judgement
from pipelines.night.placing import DEEP, Places, capped
from pipelines.night.rules import groups_of_items
from pipelines.recommenders.blend.scored import scored
from pipelines.recommenders.ranking import is_warm, top_k


def main() -> None:
    """Print both figures."""
    args = two_nights(__doc__).parse_args()
    config = load_config(args.config)
    lake = Lake.of(config)
    with opened(config, lake, args.date) as night:
        later = liked_later(config, lake, args.date, args.until)
        members = groups_of_items(lake.read("std_items", args.date), ["category"])["category"]
        show(bench(night, later, members, config), args.json)


def bench(night: Loaded, later: Judgement, members: sparse.csr_matrix, config: Config) -> Iterator[Figure]:
    """Share of places that the unwanted category keeps, and share of NDCG that is left."""
    rows = rows_in(later.users, night.users)
    known = (rows >= 0) & is_warm(night.inputs, np.maximum(rows, 0))
    users, relevant, k = rows[known], later.relevant[known], config.recommend.k
    scores = next(s for name, s, _ in scored(night.models, night.inputs, users) if name == config.recommend.serve)
    ranked = top_k(np.where(night.servable, scores, -np.inf), k * DEEP, night.seen[users])
    plain = ranked[0][:, :k]
    usual = np.stack([np.asarray(members[items].sum(0)).ravel() for items in plain])
    draw = np.random.default_rng(0).random(usual.shape)
    most = np.where(usual > 1, draw, usual / 1e6).argmax(1)
    unwanted = sparse.csr_matrix((np.ones(len(users)), (np.arange(len(users)), most)), shape=usual.shape)
    free = Places(members, np.full(usual.shape[1], np.inf), unwanted)
    lists = capped(*ranked, free, np.arange(len(users)), k)[0]
    kept = np.array([members[items[items >= 0]][:, [c]].sum() for items, c in zip(lists, most, strict=True)])
    had, number = usual[np.arange(len(users)), most], np.diff(relevant.indptr)
    yield Figure("places that less of a category leaves", kept.sum() / len(users), "places", f"plain lists, {len(users)} users", kept.sum() / had.sum(), 0.5, "lower")  # noqa: E501 # fmt: skip
    before, after = (float(np.mean(ndcg(hits_of(x, relevant), number))) for x in (plain, lists))
    yield Figure(f"NDCG@{k} with less of it", after, "", f"plain lists, {before:.4f}", after / before, 0.98, "higher")


if __name__ == "__main__":
    main()

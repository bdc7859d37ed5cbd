"""`python -m benchmarks.reasons --config FILE --date NIGHT [--json]`: whether the items that a reason names matter.

Of users with a history, some places of their lists: the served model scores the user again without the history items
that the reason names, and without as many others, drawn at random. A reason is true where the item falls further
without the named ones. What models have learned of a user by number (ALS, LightGCN) stays as it is in both. Beside
it: the same for the items that are nearest in the unified space, and what reasons cost beside the scores.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, parser, show
from encoders.space.ragged import Ragged
from pipelines.config import load_config
from pipelines.lake.storage import Lake
from pipelines.learning.reasons import Reasons, explain
from pipelines.night.files import Loaded, opened
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.blend.hybrid import Hybrid
from pipelines.recommenders.ranking import liked_by, top_k
from pipelines.score import speakers_of

USERS, LEAST_HISTORY = 200, 8
BLOCK = 2000  # users of one block, whose cost is measured
PLACES = (0, 2, 5, 9, 15)  # of a list


class Served:
    """The served lists of some users, and what becomes of their scores without parts of the history."""

    def __init__(self, night: Loaded, name: str, k: int, most: int, least_history: int = 0):
        self.night, self.name = night, name
        long = np.flatnonzero(night.inputs.histories.lengths >= least_history)
        self.users = np.sort(np.random.default_rng(0).permutation(long)[:most])
        started = time.process_time()
        self.scores = self._scored(night.inputs)
        self.score_s = time.process_time() - started
        self.items = top_k(self.scores, k, night.seen[self.users])[0]

    def _scored(self, inputs: Inputs) -> np.ndarray:
        model = next(m for m in self.night.models if m.name == self.name)
        if isinstance(model, Hybrid):
            return model.blend(model.evidence_of(inputs, self.users), liked_by(inputs, self.users))
        return model.score(inputs, self.users)

    def explained(self, by_models: bool) -> tuple[Reasons, float]:
        """Reasons, by what the models make of histories or by nearness alone, and their CPU-seconds."""
        started = time.process_time()
        speakers = speakers_of(self.night, self.users, self.name, self.items) if by_models else None
        inputs, night = self.night.inputs, self.night
        histories, signal = inputs.histories.take(self.users), inputs.has_signal[self.users]
        found = explain(night.space, histories, signal, night.liked, self.items, speakers)
        return found, time.process_time() - started

    def fall(self, without: list[np.ndarray], place: int) -> np.ndarray:
        """How far the item at a place of each list falls in score, without some items of each history (users,)."""
        inputs = self.night.inputs
        positives, histories = inputs.positives.tolil(copy=True), list(inputs.histories)
        for user, gone in zip(self.users.tolist(), without, strict=True):
            positives[user, gone] = 0
            histories[user] = histories[user][~np.isin(histories[user], gone)]
        less = positives.tocsr().astype(np.float32)
        less.eliminate_zeros()
        scores = self._scored(replace(inputs, positives=less, histories=Ragged.of(histories)))
        row, item = np.arange(len(self.users)), np.maximum(self.items[:, place], 0)
        return np.asarray(self.scores[row, item] - scores[row, item])


def share_true(served: Served, reasons: Reasons) -> float:
    """Share of rows whose item falls further without the named items than without as many drawn at random."""
    rng, further = np.random.default_rng(1), list[np.ndarray]()
    for place in (p for p in PLACES if p < served.items.shape[1]):
        named = [h[h >= 0] for h in reasons.history[:, place]]
        histories = served.night.inputs.histories
        others = [rng.choice(histories[u], len(n), replace=False) for u, n in zip(served.users, named, strict=True)]
        judged = (served.items[:, place] >= 0) & np.array([len(n) > 0 for n in named])
        further.append((served.fall(named, place) > served.fall(others, place))[judged])
    rows = np.concatenate(further)
    return float(rows.mean()) if len(rows) else 0.0


def bench(night: Loaded, name: str, k: int) -> Iterator[Figure]:
    """How often reasons are true, by the models and by nearness, and what they cost."""
    served = Served(night, name, k, USERS, LEAST_HISTORY)
    truth, base = (share_true(served, served.explained(by_models)[0]) for by_models in (True, False))
    yield Figure("reasons that are true", truth, "of rows", f"nearest in the space, {base:.3f}", truth / base if base else 1.0, 0.8, "higher")  # noqa: E501 # fmt: skip
    block = Served(night, name, k, BLOCK)
    cost = block.explained(True)[1]
    yield Figure("cost of reasons", 1000 * cost / len(block.users), "ms a user", "scores", cost / max(block.score_s, 1e-9), 0.25, "lower")  # noqa: E501 # fmt: skip


def main() -> None:
    """Print both figures of a night."""
    command = parser(__doc__)
    command.add_argument("--config", type=Path, required=True, help="configuration of the lake")
    command.add_argument("--date", type=date.fromisoformat, required=True, help="a night that was run")
    args = command.parse_args()
    config = load_config(args.config)
    lake = Lake.of(config)
    with opened(config, lake, args.date) as night:
        show(bench(night, config.recommend.serve, config.recommend.k), args.json)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.alignment --config FILE --date NIGHT [--json] [--only KIND ...]`: ways to one space, compared.

The night must have been run. The latest fifth of every history is held out (days of a night have too few users to tell
ways apart). Every kind of ``aligner.kind`` is trained on the rest, some seeds each where it is trained at all:
Recall@10 of finding a held-out item's vector in one modality by another (mean over pairs), NDCG@20 of the multimodal
recommender, seconds to train. Then the same NDCG with one modality taken from all items, by the model that was trained
with it and by one that was trained without it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import get_args

import numpy as np
from scipy import sparse

from benchmarks.figures import Figure, parser, show
from encoders.device import single_threaded
from encoders.settings import AlignerSettings, FusionKind
from encoders.space.alignment import load_aligner, train_aligner
from encoders.space.closed_form import MAPS
from encoders.space.features import Features, Uploads
from encoders.space.fusion import FusionModel, fuse_items, fuse_users
from encoders.space.ragged import Ragged
from pipelines.config import load_config
from pipelines.lake.storage import Lake
from pipelines.learning.metrics import hits_of, ndcg
from pipelines.night.night import Night
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.content import Multimodal
from pipelines.recommenders.ranking import top_k

KINDS = get_args(FusionKind)
HELD_OUT = 5  # one in so many of a history, the latest
K = 20


class Comparison:
    """One night's data, and how good a space is for it."""

    def __init__(self, histories: list[np.ndarray], features: dict[str, Features], history: int, seeds: int):
        self.features, self.history, self.seeds = features, history, seeds
        items = len(next(iter(features.values())).present)
        self.histories = [h[: len(h) - len(h) // HELD_OUT] for h in histories]
        self.positives = _matrix(self.histories, items)
        relevant = _matrix([h[len(h) - len(h) // HELD_OUT :] for h in histories], items)
        self.users = np.flatnonzero(np.diff(relevant.indptr))
        self.relevant = relevant[self.users]

    def ndcg(self, model: FusionModel, features: dict[str, Features]) -> float:
        """NDCG@20 of the multimodal recommender."""
        fused = fuse_items(model, features).vector
        histories, none = Ragged.of(self.histories), Uploads.none(len(self.histories))
        vectors = fuse_users(model, fused, histories, none, self.history)
        signal = np.diff(self.positives.indptr) > 0
        inputs = Inputs(self.positives, fused=fused, user_vectors=vectors, has_signal=signal)
        scores = Multimodal().fit(inputs).score(inputs, self.users)
        items, _ = top_k(scores, K, self.positives[self.users])
        return float(np.mean(ndcg(hits_of(items, self.relevant), np.diff(self.relevant.indptr))))

    def train(self, settings: AlignerSettings, names: list[str]) -> tuple[list[FusionModel], list[float], float]:
        """Models of all seeds on some modalities, mean retrieval of each, seconds of one."""
        models, found, started = [], [], time.monotonic()
        for seed in range(self.seeds if settings.kind not in MAPS else 1):
            weights, card = train_aligner(
                {m: self.features[m] for m in names}, self.histories, replace(settings, seed=seed)
            )
            models.append(load_aligner(weights, card))
            found += [np.mean([v["recall_at_10"] for v in card["retrieval"].values()])] if card["retrieval"] else []
        return models, found, (time.monotonic() - started) / len(models)

    def without(self, m: str) -> dict[str, Features]:
        """Features with a modality taken from every item."""
        gone = self.features[m]
        return self.features | {m: replace(gone, present=np.zeros_like(gone.present))}


def _matrix(histories: list[np.ndarray], items: int) -> sparse.csr_matrix:
    """Ones (users, items) for what is in each history."""
    at = np.cumsum([0, *map(len, histories)])
    return sparse.csr_matrix(
        (np.ones(at[-1], np.float32), np.concatenate(histories), at), shape=(len(histories), items)
    )


def figures(comparison: Comparison, settings: AlignerSettings, kinds: Sequence[FusionKind]) -> Iterator[Figure]:
    """All figures of each kind."""
    names = sorted(comparison.features)
    base: dict[str, float] = {}
    for kind in kinds:
        mine = replace(settings, kind=kind)
        models, retrieval, seconds = comparison.train(mine, names)
        quality = [comparison.ndcg(m, comparison.features) for m in models]
        found = {"retrieval_recall_at_10": float(np.mean(retrieval)), f"ndcg_at_{K}": float(np.mean(quality))}
        for name, value in (found | {"train_seconds": seconds}).items():
            first = base.setdefault(name, value)
            better = "lower" if name == "train_seconds" else "higher"
            spread = f"; seeds {min(quality):.4f} to {max(quality):.4f}" if name == f"ndcg_at_{K}" else ""
            baseline = f"{kinds[0]}, {first:.4f}{spread}"
            yield Figure(
                f"{kind}_{name}", value, "s" if better == "lower" else "share", baseline, value / first, None, better
            )
        for m in names if len(names) > 1 else []:
            dropped = float(np.mean([comparison.ndcg(model, comparison.without(m)) for model in models]))
            rest = [n for n in names if n != m]
            never = comparison.train(mine, rest)[0]
            alone = float(
                np.mean([comparison.ndcg(model, {n: comparison.features[n] for n in rest}) for model in never])
            )
            baseline = f"trained without {m}, {alone:.4f}"
            yield Figure(f"{kind}_{m}_dropped_ndcg_at_{K}", dropped, "share", baseline, dropped / alone, 1.0, "higher")


@single_threaded()
def main() -> None:
    """Train every kind and print each figure with its baseline."""
    command = parser(__doc__)
    command.add_argument("--config", type=Path, required=True, help="configuration of the lake")
    command.add_argument("--date", type=date.fromisoformat, required=True, help="a night that was run")
    command.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    command.add_argument("--seeds", type=int, default=3, help="trainings of each kind, with another seed each")
    args = command.parse_args()
    config = load_config(args.config)
    lake = Lake.of(config)
    night = Night.of(config, lake, args.date)
    comparison = Comparison(list(night.dataset().histories()), night.features(), config.aligner.history, args.seeds)
    show(figures(comparison, config.aligner, args.only), args.json)


if __name__ == "__main__":
    main()

"""Facts about items that are comparable from one day to the next.

They carry what changes between the days that models learn from and the days that lists are for: which popularity
lasts, where the catalogue moves to. Does not belong here: their weights (``likelihood``).
"""

import numpy as np
from scipy import sparse

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.item_graphs import centred, content_graph, normalized
from pipelines.recommenders.matrices import right_directions, scaled

MODES = 16  # leading directions of the interactions and of each modality
USUAL = 0.98  # quantile of activity above which a user says little about which items go together
DAMPING = 3.0  # added to an item's degree
LEAST_SHARE = 0.01  # of the events; an activity stratum with less is left out
CLIP = 4.0  # standard deviations


class ItemFacts:
    """Facts about each item that are comparable from one day to the next.

    Log popularity in the last days, by window, where times are known; log popularity among users of like activity (1,
    2, 3-4, 5-8, ... items) and among the items' neighbours; leading directions of the interactions of all but the most
    active users (randomized SVD, https://arxiv.org/abs/0909.4061) and of each modality. Directions are computed in
    ``fit_transform``; later inputs are projected on them.
    """

    def fit_transform(self, inputs: Inputs) -> np.ndarray:
        """Find strata, directions and scales; facts (items, facts) of the same inputs, the ``recent`` ones first."""
        self.recent = inputs.recent.shape[1]
        active = np.diff(inputs.positives.indptr)
        self.usual = active <= (np.quantile(active[active > 0], USUAL) if active.any() else 0)
        events = np.bincount(_stratum(active), weights=active)
        self.strata = np.flatnonzero(events > LEAST_SHARE * max(active.sum(), 1))
        self.users = right_directions(self._links(inputs).T, MODES)
        self.axes = {m: right_directions(v, MODES) for m, v in _contents(inputs).items()}
        raw = self._raw(inputs)
        self.mean, self.deviation = raw.mean(0), np.maximum(raw.std(0), 1e-9)
        return self._scaled(raw)

    def transform(self, inputs: Inputs) -> np.ndarray:
        """Float32 (items, facts) of other inputs on the same users and items."""
        return self._scaled(self._raw(inputs))

    def _scaled(self, raw: np.ndarray) -> np.ndarray:
        return np.clip((raw - self.mean) / self.deviation, -CLIP, CLIP).astype(np.float32)

    def _links(self, inputs: Inputs) -> sparse.csr_matrix:
        """Interactions (users, items) of all but the most active users, damped by both degrees."""
        usual = (sparse.diags_array(self.usual.astype(np.float32)) @ inputs.positives).tocsr()
        degree = np.asarray(usual.sum(0)).ravel() + DAMPING
        return (scaled(usual, 0.5, 0.0) @ sparse.diags_array(degree**-0.5)).tocsr().astype(np.float32)

    def _raw(self, inputs: Inputs) -> np.ndarray:
        liked = (inputs.positives > 0).astype(np.float32).tocsr()
        stratum = _stratum(np.diff(liked.indptr))
        popularity = np.zeros((liked.shape[1], len(self.strata)))
        for column, s in enumerate(self.strata):
            popularity[:, column] = np.asarray(liked[stratum == s].sum(0)).ravel()
        usual = liked[self.usual]
        together, alike = scaled((usual.T @ usual).tocsr(), 0.5, 0.5), content_graph(inputs)
        recent = inputs.recent if len(inputs.recent) else np.zeros((liked.shape[1], self.recent))
        counts = [np.log1p(p) for p in (recent, popularity, together @ popularity, alike @ popularity)]
        contents = _contents(inputs)
        directions = [self._links(inputs).T @ self.users, *(contents[m] @ axes for m, axes in self.axes.items())]
        return np.hstack([np.asarray(p, np.float64) for p in (*counts, *directions)])


def _stratum(activity: np.ndarray) -> np.ndarray:
    """0 for none or one item, 1 for two, 2 for three and four, 3 up to eight, ..."""
    return np.ceil(np.log2(np.maximum(activity, 1))).astype(int)


def _contents(inputs: Inputs) -> dict[str, np.ndarray | sparse.csr_matrix]:
    """What each modality says of items, one row an item: its vector, or its similarity to all others."""
    contents: dict[str, np.ndarray | sparse.csr_matrix] = {m: centred(v) for m, v in inputs.content.items()}
    contents |= {m: normalized(g) for m, g in inputs.graphs.items() if m not in contents}
    return dict(sorted(contents.items()))

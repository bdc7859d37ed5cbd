"""Items that nobody has liked yet: what people would do with them, learned by hiding items that people did like.

Belongs here: carrying behaviour over content to new items. Does not: known items (all other recommenders), where new
items are placed in a list (``hybrid``).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
from scipy import sparse

from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender
from pipelines.recommenders.blend.likelihood import Choices, Weights, channel, combined, fit
from pipelines.recommenders.graph import Walker
from pipelines.recommenders.item_graphs import centred
from pipelines.recommenders.lightgcn import LightGCN
from pipelines.recommenders.matrices import pack, scaled, unit_or_empty, unit_or_zero, unpack
from pipelines.recommenders.ranking import MIN_USERS, blocks_of, some_users, top_k

HIDDEN = 5  # one liked item in so many is hidden to learn from
BROAD, NARROW = 4.0, 10.0  # sharpness of a kernel
NEIGHBOURS = 100  # liked items that speak for a new one
STEPS = ("R", "RR")
REACHED = 20_000_000  # numbers of one walk that are kept
ENOUGH = 20  # new items; where a list could hold all of them, their weights hardly matter
BLOCK = 1024  # new items of one similarity block


class Transfer(Recommender):
    """What users would do with new items, from what they do with items alike in content; liked items score 0.

    Signals on liked items (walks of one and of two steps over interactions, ``graph.GraphFilter``; LightGCN) are
    carried to a new item as a mean over its nearest liked items by content, weighted by ``exp(sharpness * (cosine -
    1))`` (Nadaraya-Watson, https://doi.org/10.1137/1109020): for each modality, and for all of them side by side, broad
    and narrow. They and the plain cosines of each modality are weighed by what makes hidden items likely for those who
    liked them: a fifth of the liked items is hidden, everything is fitted on the rest, and the weights are fitted on
    the hidden (conditional logit as in ``likelihood``; what is new is trained as if new, cf. DropoutNet,
    https://papers.nips.cc/paper/7081). Scores are chances among the new items, and add up to 1 for a user with history.
    """

    name = "transfer"
    signed = False
    grid: ClassVar[tuple[Hyperparameters, ...]] = ()

    def __init__(self) -> None:
        self.network: LightGCN | None = None

    def given(self, others: Mapping[str, Recommender]) -> Self:
        """Itself; where LightGCN was fitted on the same inputs, it is not fitted again."""
        network = others.get(LightGCN.name)
        self.network = network if isinstance(network, LightGCN) else None
        return self

    def fit(self, inputs: Inputs) -> Self:
        """Itself, after learning the weights from hidden items and carrying what is known to the new items."""
        liked = np.diff(inputs.positives.tocsc().indptr) > 0
        self.sources, self.weights = _Sources(), np.zeros(0, np.float32)
        network, self.network = self.network, None
        if not liked.any() or liked.all() or not (inputs.content or inputs.graphs):
            self.sources.targets = np.zeros(0, np.int64)
            return self
        number = self.sources.fit(inputs, np.flatnonzero(~liked), network or LightGCN().fit(inputs)).number
        self.weights = np.full(number, 1 / number, np.float32)
        if (~liked).sum() >= ENOUGH:
            self.weights = _learned(inputs, np.flatnonzero(liked), self.weights)
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        out, targets = np.zeros((len(users), inputs.positives.shape[1]), np.float32), self.sources.targets
        if len(targets):
            logits = combined(self.sources.channels(inputs, users), self.weights, np.zeros(len(targets)))
            chance = np.exp(logits - logits.max(1, keepdims=True))
            known = np.diff(inputs.positives[users].indptr) > 0
            out[:, targets] = chance / chance.sum(1, keepdims=True) * known[:, None]
        return out

    def state(self) -> Arrays:
        """Arrays to store."""
        return {"weights": self.weights} | self.sources.state()

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Itself, with stored arrays; vectors and interactions are those of the inputs."""
        self.weights, self.sources = state["weights"], _Sources().restore(state, inputs)
        return self


def _learned(inputs: Inputs, liked: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Weights of the signals: fitted on hidden items, those of the start where too few users liked those."""
    hidden = np.sort(np.random.default_rng(0).permutation(liked)[: -(-len(liked) // HIDDEN)])
    shown = np.ones(inputs.positives.shape[1], np.float32)
    shown[hidden] = 0
    positives = (inputs.positives @ sparse.diags_array(shown)).tocsr()
    positives.eliminate_zeros()
    past, relevant = replace(inputs, positives=positives), inputs.positives[:, hidden].tocsr()
    both = np.flatnonzero((np.diff(positives.indptr) > 0) & (np.diff(relevant.indptr) > 0))
    if len(both) < MIN_USERS:
        return start
    sources, items = _Sources().fit(past, hidden, LightGCN().fit(past)), inputs.positives.shape[1]
    level, none = np.zeros(len(hidden), np.float32), np.zeros((len(hidden), 0), np.float32)
    choices = [
        Choices.collect(sources.channels(past, block), relevant[block], None, start, level)
        for block in blocks_of(some_users(both, items), items)
    ]
    return fit(Choices.joined(choices), none, Weights(start, np.zeros(0))).channels.astype(np.float32)


class _Sources:
    """Signals for some items that have no interactions in what is known.

    Attributes:
        targets: rows of these items.
        links: interactions over the square roots of both degrees (users, items).
        near: means over like items, one (targets, items) for each kernel; rows add up to 1, or are empty.
        users: LightGCN's (users, dim), and ``carried`` its items' by each kernel (targets, dim).
        alike: cosine of items to each target by each modality with a graph alone (items, targets).
        vectors: centred content of each other modality (items, d).
    """

    def __init__(self) -> None:
        self.walker: Walker | None = None
        self.reached: list[np.ndarray] = []

    @property
    def number(self) -> int:
        """How many channels there are: three carried by each kernel, and the cosines of each modality."""
        return 3 * len(self.near) + len(self.vectors) + len(self.alike)

    def fit(self, inputs: Inputs, targets: np.ndarray, network: LightGCN) -> Self:
        """Itself, after fitting what carries from liked items to targets; ``network`` is fitted on the same inputs."""
        self.targets, self.links = targets, scaled(inputs.positives, 0.5, 0.5)
        known = np.flatnonzero(np.diff(inputs.positives.tocsc().indptr))
        parts = {m: centred(v) for m, v in sorted(inputs.content.items())}
        given = {m: g.tocsr() for m, g in sorted(inputs.graphs.items()) if m not in parts}
        joined = weighted_content(parts, known, self.links)
        self.near = [kernel(joined, known, targets, s) for s in (BROAD, NARROW)] if parts else []
        self.near += [kernel(v, known, targets, BROAD) for v in parts.values()]
        shown = np.isin(np.arange(len(joined)), known).astype(np.float32)
        self.near += [scaled((g[targets] @ sparse.diags_array(shown)).tocsr(), 1.0, 0.0) for g in given.values()]
        self.users, self.carried = network.users, [n @ network.items for n in self.near]
        self.vectors, self.alike = list(parts.values()), [g[:, targets].tocsr() for g in given.values()]
        return self

    def channels(self, inputs: Inputs, users: np.ndarray) -> list[np.ndarray]:
        """Each signal (users, targets) on a scale that adds up with others'.

        For each kernel walks of one step and of two and LightGCN, then cosines of each modality.
        """
        history, own = unit_or_empty(inputs.positives[users]), self.users[users]
        channels, walks = [], self._walked(users, inputs.device)
        for k, carried in enumerate(self.carried):
            of_kernel = slice(k * len(self.targets), (k + 1) * len(self.targets))
            channels += [channel(np.ascontiguousarray(walk[:, of_kernel]), signed=False) for walk in walks]
            channels.append(channel(own @ carried.T, signed=True))
        channels += [channel((history @ v) @ v[self.targets].T, signed=True) for v in self.vectors]
        return [*channels, *(channel((history @ g).toarray(), signed=True) for g in self.alike)]

    def _walked(self, users: np.ndarray, device: str) -> list[np.ndarray]:
        """Walks of one step and of two, carried by each kernel: (users, kernels x targets)."""
        start = self.links[users]
        if self.reached:
            return [start @ walk for walk in self.reached]
        ends = sparse.vstack(self.near).tocsr()
        if not self.walker:
            nothing = sparse.csr_matrix((ends.shape[1],) * 2, dtype=np.float32)
            self.walker = Walker(self.links, nothing, device)
        if ends.shape[0] >= self.links.shape[0] or np.prod(ends.shape) > REACHED:
            return [(ends @ walk.T).T for walk in self.walker.walked(start, STEPS)]
        # a walk is as long from either side; where fewer end than start, they are walked once, from the ends
        self.reached = [np.ascontiguousarray(walk.T) for walk in self.walker.walked(ends, STEPS)]
        return [start @ walk for walk in self.reached]

    def state(self) -> Arrays:
        """Arrays to store; nothing but ``targets`` where there are none."""
        state = {"targets": self.targets}
        if not len(self.targets):
            return state
        state |= {"users": self.users}
        for name, matrices in (("near", self.near), ("alike", self.alike)):
            for i, matrix in enumerate(matrices):
                state |= pack(f"{name}.{i:03d}", matrix)
        return state | {f"carried.{i:03d}": v for i, v in enumerate(self.carried)}

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Itself, with stored arrays."""
        self.targets = state["targets"]
        if len(self.targets):
            self.users, self.links = state["users"], scaled(inputs.positives, 0.5, 0.5)
            names = {n: sorted({k.split(".")[1] for k in state if k.startswith(f"{n}.")}) for n in ("near", "alike")}
            self.near, self.alike = ([unpack(f"{n}.{i}", state) for i in numbers] for n, numbers in names.items())
            self.carried = [v for k, v in sorted(state.items()) if k.startswith("carried.")]
            self.vectors = [centred(v) for _, v in sorted(inputs.content.items())]
        return self


def weighted_content(parts: dict[str, np.ndarray], known: np.ndarray, links: sparse.csr_matrix) -> np.ndarray:
    """All modalities side by side, unit rows (items, d); each weighs as much as likeness in it predicts behaviour.

    Weights are those of a least-squares fit, over all pairs of liked items, of co-occurrence (entries of R'R without
    the diagonal, R being ``links``) by the cosines of each modality; negative ones are cut. Cosines enter by weight, so
    a modality's rows are scaled by its square root.

    Args:
        parts: modality -> unit or zero rows (items, d_m).
        known: rows of liked items.
        links: damped interactions (users, items).
    """
    if not parts:
        return np.zeros((links.shape[1], 0), np.float32)
    rows, seen = [v[known] for v in parts.values()], links[:, known].tocsr()
    own = [(p * p).sum(1).astype(np.float64) for p in rows]  # the diagonal tells nothing
    gram = np.array(
        [
            [((a.T @ b).astype(np.float64) ** 2).sum() - i @ j for b, j in zip(rows, own, strict=True)]
            for a, i in zip(rows, own, strict=True)
        ]
    )
    degree = np.asarray(seen.multiply(seen).sum(0)).ravel()
    together = [((seen @ p).astype(np.float64) ** 2).sum() - degree @ o for p, o in zip(rows, own, strict=True)]
    fitted = np.maximum(np.linalg.lstsq(gram, np.array(together), rcond=None)[0], 0)
    weights = fitted / fitted.sum() if fitted.any() else np.full(len(rows), 1 / len(rows))
    return unit_or_zero(np.hstack([np.float32(w**0.5) * p for w, p in zip(weights, parts.values(), strict=True)]))


def kernel(vectors: np.ndarray, known: np.ndarray, targets: np.ndarray, sharpness: float) -> sparse.csr_matrix:
    """Weights (targets, items) of the nearest known items; rows add up to 1, or are empty where there is no content."""
    there = np.linalg.norm(vectors, axis=1) > 0
    known, k = known[there[known]], min(NEIGHBOURS, int(there[known].sum()))
    columns, values = np.zeros((len(targets), k), np.int64), np.zeros((len(targets), k), np.float32)
    for a in range(0, len(targets), BLOCK):
        rows = targets[a : a + BLOCK]
        nearest, cosine = top_k(vectors[rows] @ vectors[known].T, k)
        columns[a : a + BLOCK] = known[nearest]
        values[a : a + BLOCK] = np.exp(sharpness * (cosine - 1)) * there[rows, None]
    row = np.repeat(np.arange(len(targets)), k)
    weights = sparse.csr_matrix((values.ravel(), (row, columns.ravel())), shape=(len(targets), len(vectors)))
    weights.eliminate_zeros()
    return scaled(weights, 1.0, 0.0)

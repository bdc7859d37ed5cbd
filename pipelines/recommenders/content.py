"""Recommenders that look at what items are: raw modality vectors, and the unified space."""

from typing import ClassVar, Self

import numpy as np

from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender
from pipelines.recommenders.item_graphs import centred, neighbours_of
from pipelines.recommenders.matrices import pack, unit_or_empty, unpack


class Content(Recommender):
    """Items like those of the history, by the cosine of raw modality vectors, averaged over modalities.

    Where a modality has no vectors, the entries of its graph are the cosines.
    """

    name = "content"
    signed = True
    grid: ClassVar[tuple[Hyperparameters, ...]] = ()

    def fit(self, inputs: Inputs) -> Self:
        """Centre each modality and lay them side by side, so that a dot product is the mean of cosines."""
        self.parts = {m: centred(v) for m, v in sorted(inputs.content.items())}
        self.means = {m: _mean_of_present(v) for m, v in sorted(inputs.content.items())}
        self.graphs = {m: g for m, g in sorted(inputs.graphs.items()) if m not in inputs.content}
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items); a user's uploads count like items of the history."""
        history = unit_or_empty(inputs.positives[users])
        total = np.zeros((len(users), history.shape[1]), np.float32)
        for m, vectors in self.parts.items():
            profile = history @ vectors
            if m in inputs.uploads:
                own = inputs.uploads[m][users]
                profile = profile + np.where(np.linalg.norm(own, axis=1, keepdims=True) > 0, own - self.means[m], 0)
            total += profile.astype(np.float32) @ vectors.T
        for graph in self.graphs.values():
            total += (history @ graph).toarray()
        return total / max(len(self.parts) + len(self.graphs), 1)

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Sum of the cosines of all modalities."""
        total = np.zeros((len(of), len(items)), np.float32)
        for vectors in self.parts.values():
            total += vectors[of] @ vectors[items].T
        for graph in self.graphs.values():
            total += graph[of][:, items].toarray()
        return total

    def state(self) -> Arrays:
        """Arrays to store."""
        means = {f"means.{m}": v for m, v in self.means.items()}
        return means | {k: v for m, g in self.graphs.items() for k, v in pack(f"graphs.{m}", g).items()}

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Itself, with stored arrays; the vectors are those of the inputs."""
        self.parts = {m: centred(v) for m, v in sorted(inputs.content.items())}
        self.means = {k.removeprefix("means."): v for k, v in sorted(state.items()) if k.startswith("means.")}
        names = [k.split(".")[1] for k in sorted(state) if k.startswith("graphs.") and k.endswith(".shape")]
        self.graphs = {m: unpack(f"graphs.{m}", state) for m in names}
        return self


def _mean_of_present(matrix: np.ndarray) -> np.ndarray:
    there = np.linalg.norm(matrix, axis=1) > 0
    return (matrix[there].mean(0) if there.any() else np.zeros(matrix.shape[1])).astype(np.float32)


class Multimodal(Recommender):
    """R(U, I) in the unified space, plus the history spread over a graph of items alike in it.

    The graph carries interactions to items that have none (https://arxiv.org/abs/2104.09036, frozen item graph).
    """

    name = "multimodal"
    signed = True
    grid: ClassVar[tuple[Hyperparameters, ...]] = ()

    def fit(self, inputs: Inputs) -> Self:
        """Build the graph of the centred fused vectors."""
        self.items = centred(inputs.fused)
        self.mean = _mean_of_present(inputs.fused)
        self.graph = neighbours_of(inputs, "fused", inputs.fused)
        return self

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        known = inputs.has_signal[users][:, None]
        direct = np.where(known, (inputs.user_vectors[users] - self.mean) @ self.items.T, 0)
        spread = unit_or_empty(inputs.positives[users]) @ self.graph
        return (direct + np.asarray(spread.todense())).astype(np.float32)

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Centred cosine in the unified space, and the graph of it."""
        return np.asarray(self.items[of] @ self.items[items].T + self.graph[of][:, items].toarray())

    def state(self) -> Arrays:
        """Arrays to store."""
        return {"mean": self.mean} | pack("graph", self.graph)

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Itself, with stored arrays; the vectors are those of the inputs."""
        self.items, self.mean, self.graph = centred(inputs.fused), state["mean"], unpack("graph", state)
        return self

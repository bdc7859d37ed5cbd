"""A small graph network of users and items, trained with a softmax over the whole catalogue."""

from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender
from pipelines.recommenders.item_graphs import content_graph
from pipelines.recommenders.matrices import OnDevice, right_directions, scaled

BATCH = 2048  # users of one step
BLOCK = 128  # users whose scores are held at once; they stay in the processor's cache
WORK = 500_000_000  # scores of one training, at most
EPOCHS = 20  # at most
CONTENT = 0.5  # weight of the content graph


class LightGCN(Recommender):
    """LightGCN (https://arxiv.org/abs/2002.02126) with a frozen item graph (https://arxiv.org/abs/2211.06924).

    Vectors of users and items are averaged over the graph of interactions and content, made unit, and trained so that
    what a user liked is likely among all items (full softmax of cosines; negatives are not sampled). Training begins at
    the leading singular vectors of the interactions and the content graph.

    Args:
        dim: length of a vector.
        layers: steps over the graph.
        temperature: of the softmax.
        activity: exponent by which a user with many items weighs less.
        learning_rate: of Adam.
    """

    name = "lightgcn"
    signed = True
    grid: ClassVar[tuple[Hyperparameters, ...]] = ()

    def __init__(
        self,
        dim: Annotated[int, Field(ge=1, le=4096)] = 48,
        layers: Annotated[int, Field(ge=0, le=16)] = 3,
        temperature: Annotated[float, Field(gt=0)] = 0.25,
        activity: Annotated[float, Field(ge=0, le=1)] = 0.3,
        learning_rate: Annotated[float, Field(gt=0)] = 0.03,
    ):
        self.dim, self.layers, self.temperature = dim, layers, temperature
        self.activity, self.learning_rate = activity, learning_rate

    def fit(self, inputs: Inputs) -> Self:
        """Itself, after training."""
        self.users, self.items = self._trained(inputs)
        return self

    def _trained(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors of users and items; steps are bounded by ``WORK`` and ``EPOCHS``, memory by a block of users."""
        liked = (inputs.positives > 0).astype(np.float32).tocsr()
        links, graph = scaled(liked, 0.5, 0.5), CONTENT * content_graph(inputs)
        known = np.flatnonzero(np.diff(liked.indptr))
        users = liked.shape[0]
        start = self._start(links, graph)
        around = OnDevice(sparse.block_array([[None, links], [links.T, graph]], format="csr"), inputs.device)
        vectors = torch.from_numpy(start).to(inputs.device)
        optimizer = torch.optim.Adam([vectors], lr=self.learning_rate)
        for batch in _batches(known, liked.shape[1]):
            spread = self._spread(around, vectors)
            units = F.normalize(spread, dim=1)
            slope = self._slope(units, users, liked[batch], batch)
            slope -= (slope * units).sum(1, keepdim=True) * units  # through the normalization
            vectors.grad = self._spread(around, slope / spread.norm(dim=1, keepdim=True).clamp(min=1e-12))
            optimizer.step()
        embeddings: np.ndarray = F.normalize(self._spread(around, vectors), dim=1).cpu().numpy()
        return embeddings[:users], embeddings[users:]

    def _start(self, links: sparse.csr_matrix, graph: sparse.csr_matrix) -> np.ndarray:
        """Singular vectors (users + items, dim), about unit rows."""
        items = right_directions(sparse.vstack([links, graph]).tocsr(), self.dim)
        items = np.pad(items, ((0, 0), (0, self.dim - items.shape[1])))
        return np.ascontiguousarray(10 * np.vstack([links @ items, items]), np.float32)

    def _spread(self, around: OnDevice, vectors: Tensor) -> Tensor:
        """Sum over layers; the graph is symmetric, so the way back is the same."""
        total = vectors
        for _ in range(self.layers):
            vectors = around @ vectors
            total = total + vectors
        return total

    def _slope(self, units: Tensor, users: int, liked: sparse.csr_matrix, batch: np.ndarray) -> Tensor:
        """Gradient (users + items, dim) of the mean loss of a batch of users, by blocks."""
        items, slope = units[users:], torch.zeros_like(units)
        activity = np.diff(liked.indptr)
        weight = (activity ** (1 - self.activity)).astype(np.float32)
        weight /= weight.sum() * self.temperature
        for a in range(0, len(batch), BLOCK):
            rows = slice(a, a + BLOCK)
            users_of_block = torch.from_numpy(batch[rows]).to(units.device)
            goal = torch.from_numpy(scaled(liked[rows], 1.0, 0.0).toarray()).to(units.device)
            votes = torch.from_numpy(weight[rows, None]).to(units.device)
            own = units[users_of_block]
            likely = ((own @ items.T - 1) / self.temperature).exp_()  # cosines are at most 1
            miss = likely.mul_(votes / likely.sum(1, keepdim=True)).sub_(goal.mul_(votes))
            slope[users_of_block] += miss @ items
            slope[users:] += miss.T @ own
        return slope

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return self.users[users] @ self.items.T

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Cosine of the items' vectors."""
        return np.asarray(self.items[of] @ self.items[items].T)

    def state(self) -> Arrays:
        """Arrays to store."""
        return {"users": self.users, "items": self.items}

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.users, self.items = state["users"], state["items"]
        return self


def _batches(users: np.ndarray, items: int) -> list[np.ndarray]:
    """Users of each step, every user once an epoch in an order of its own."""
    if not len(users):
        return []
    order, parts = np.random.default_rng(0), -(-len(users) // BATCH)
    epochs = min(EPOCHS, -(-WORK // (len(users) * items)))
    steps = [batch for _ in range(epochs) for batch in np.array_split(order.permutation(users), parts)]
    return steps[: max(1, WORK // (min(BATCH, len(users)) * items))]

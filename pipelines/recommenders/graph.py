"""Graph filter: a history spread over the graph of who liked what and the graphs of items alike in content.

Belongs here: normalized graphs and walks on them. Does not: how content graphs are cut (``item_graphs``).
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from scipy import sparse

from pipelines.recommenders.base import Arrays, Hyperparameters, Inputs, Recommender
from pipelines.recommenders.item_graphs import content_graph
from pipelines.recommenders.matrices import OnDevice, pack, scaled, unpack
from pipelines.recommenders.ranking import PASS_USERS, weighted_sum

WALKS = ("R", "RR", "RRR", "C", "CR", "CC", "RC", "RRC", "RCR", "RCC")  # each is an earlier one and a step


class Walker:
    """Walks over interactions and over content, on the device that the graphs are brought to.

    Args:
        links: normalized interactions (users, items).
        graph: normalized content graph (items, items).
        device: torch device.
    """

    def __init__(self, links: sparse.csr_matrix, graph: sparse.csr_matrix, device: str):
        self.device = device
        graphs = (links, links.T.tocsr(), graph)
        self.there, self.back, self.alike = (OnDevice(g, device) for g in graphs)

    def walked(self, start: sparse.csr_matrix, walks: Sequence[str]) -> list[np.ndarray]:
        """Where walks lead to, float32 (n, items) each, item by item in memory.

        Args:
            start: where each of n begins (n, items).
            walks: steps, R over interactions or C over content; each is an earlier one and a step.
        """
        passes = [self._walked(start[a : a + PASS_USERS], walks) for a in range(0, start.shape[0], PASS_USERS)]
        blocks = zip(*passes, strict=True) if passes else [[torch.empty(start.shape[::-1])]] * len(walks)
        return [(torch.cat(b, 1) if len(b) > 1 else b[0]).cpu().numpy().T for b in map(list, blocks)]

    def _walked(self, start: sparse.csr_matrix, walks: Sequence[str]) -> list[torch.Tensor]:
        """Where walks lead to from a block of starts, (items, n) each."""
        at = {"": torch.from_numpy(start.T.toarray(order="C")).to(self.device)}
        for walk in walks:
            before = at[walk[:-1]]
            at[walk] = self.back @ (self.there @ before) if walk[-1] == "R" else self.alike @ before
        return [at[walk] for walk in walks]


class GraphFilter(Recommender):
    """Low-pass filter of the interaction graph and the content graphs, without training.

    Walks of up to three steps from the history, each over interactions (R'R, R divided by the square roots of both
    degrees) or over the content graph C; close to GF-CF (https://arxiv.org/abs/2108.07567) with the frozen item graph
    of FREEDOM (https://arxiv.org/abs/2211.06924). The score adds up the walks of three steps that begin with an
    interaction, with a weight for each step over content. Popularity comes back in with an exponent, counted so that a
    user with a long history does not weigh more. A stack weighs each walk by itself.

    Args:
        content: weight of a step over content.
        popularity: exponent of damped popularity.
    """

    name = "graph"
    signed = False
    signals: tuple[str, ...] = WALKS
    grid: ClassVar[tuple[Hyperparameters, ...]] = ({"popularity": 0.25},)
    combines = True

    def __init__(
        self, content: Annotated[float, Field(ge=0)] = 0.6, popularity: Annotated[float, Field(ge=0, le=4)] = 0.5
    ):
        self.content, self.popularity = content, popularity
        self.walker: Walker | None = None
        self.turned: sparse.csr_matrix | None = None

    def fit(self, inputs: Inputs) -> Self:
        """Normalize the graphs."""
        self.walker = self.turned = None
        self.links = scaled(inputs.positives, 0.5, 0.5)
        self.column = np.asarray(inputs.positives.sum(0), np.float32).ravel()
        self.graph = content_graph(inputs)
        self.damped = np.asarray(scaled(inputs.positives, 0.5, 0.0).sum(0), np.float32).ravel()
        return self

    def evidence(self, inputs: Inputs, users: np.ndarray) -> list[np.ndarray]:
        """What each of the walks brings to every item, (users, items) each."""
        item = np.where(self.column > 0, self.column, 1) ** -0.5
        start = (scaled(inputs.positives[users], 0.5, 0.0) @ sparse.diags_array(item)).tocsr().astype(np.float32)
        self.walker = self.walker or Walker(self.links, self.graph, inputs.device)
        return self.walker.walked(start, self.signals)

    def likeness(self, of: np.ndarray, items: np.ndarray) -> np.ndarray:
        """One step over interactions, and one over content at its weight."""
        self.turned = self.links.T.tocsr() if self.turned is None else self.turned
        step = (self.turned[of] @ self.turned[items].T).toarray()
        return np.asarray(step + self.content * self.graph[of][:, items].toarray(), np.float32)

    def combine(self, evidence: list[np.ndarray]) -> np.ndarray:
        """(users, items)."""
        longest = [(walk, reached) for walk, reached in zip(self.signals, evidence, strict=True) if len(walk) == 3]
        weights = np.array([self.content ** walk.count("C") for walk, _ in longest])
        total = weighted_sum((reached for _, reached in longest), weights)
        total *= ((1 + self.damped) ** self.popularity).astype(np.float32)
        return total

    def score(self, inputs: Inputs, users: np.ndarray) -> np.ndarray:
        """(users, items)."""
        return self.combine(self.evidence(inputs, users))

    def state(self) -> Arrays:
        """Arrays to store."""
        return pack("links", self.links) | pack("graph", self.graph) | {"column": self.column, "damped": self.damped}

    def restore(self, state: Arrays, inputs: Inputs) -> Self:
        """Stored arrays."""
        self.walker, self.turned, self.links, self.graph = None, None, unpack("links", state), unpack("graph", state)
        self.column, self.damped = state["column"], state["damped"]
        return self

"""Content: vectors, and graphs where there are none."""

from dataclasses import replace

import numpy as np

from pipelines.recommenders.base import Inputs
from pipelines.recommenders.content import Content
from pipelines.recommenders.item_graphs import GRAPH_NEIGHBOURS, centred, nearest_graph


def test_content_reads_a_graph_where_there_are_no_vectors(inputs: Inputs) -> None:
    graph = nearest_graph(centred(inputs.content["image"]), GRAPH_NEIGHBOURS)
    given, users = Inputs(inputs.positives, graphs={"image": graph}), np.arange(20)
    model = Content().fit(given)
    scores = model.score(given, users)
    liked = inputs.positives[users].toarray()
    expected = liked / np.maximum(np.linalg.norm(liked, axis=1, keepdims=True), 1e-12) @ graph.toarray()
    assert np.allclose(scores, expected, atol=1e-6)
    assert np.array_equal(Content().restore(model.state(), given).score(given, users), scores)
    both = Content().fit(replace(inputs, graphs={"image": graph}))
    assert not both.graphs, "vectors say it better"

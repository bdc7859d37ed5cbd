"""Models as files: what serves is what was fitted on the night's tables."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from pipelines.lake.cards import chosen_settings, files_of_model, load_arrays, load_recommenders, made_from
from pipelines.lake.storage import Lake, StorageError
from pipelines.recommenders.base import Arrays, Inputs
from pipelines.recommenders.neighbours import Popularity, UserCF
from tests.lakes import DAY, at, event, publish_vectors, tiny_lake

INPUTS = Inputs(sparse.csr_matrix(np.array([[1, 0, 2], [0, 3, 0]], np.float32)))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = tiny_lake(tmp_path, [event("u", "a", at(9))], [{"item_id": i} for i in "abc"])
    for model, settings in ((Popularity(), {}), (UserCF(7), {"neighbours": 7})):
        files = files_of_model(model.fit(INPUTS).state(), {"settings": settings})
        lake.publish_files(f"model_{model.name}", DAY, files, inputs=made_from(lake, DAY))
    return lake


def test_models_come_back_with_their_settings_in_the_order_of_the_names(lake: Lake) -> None:
    second, first = load_recommenders(lake, DAY, ["user_cf", "popularity"], INPUTS)
    assert (first.name, second.name) == ("popularity", "user_cf")
    assert isinstance(second, UserCF)
    assert second.neighbours == 7
    assert first.score(INPUTS, np.array([0])).tolist() == [[1, 3, 2]]


def test_a_model_of_other_tables_is_refused(lake: Lake) -> None:
    tiny_lake(lake.root, [event("u", "a", at(9)), event("u", "b", at(10))], [{"item_id": i} for i in "abc"])
    with pytest.raises(StorageError, match=r"model_popularity of 2026-03-10 was fitted on another std_interactions"):
        load_recommenders(lake, DAY, ["popularity"], INPUTS)


def test_vectors_that_were_made_again_are_other_tables(lake: Lake) -> None:
    publish_vectors(lake, "text", {"t1": [1, 0]})
    files = files_of_model(Popularity().fit(INPUTS).state(), {"settings": {}})
    lake.publish_files("model_popularity", DAY, files, inputs=made_from(lake, DAY))
    load_recommenders(lake, DAY, ["popularity"], INPUTS)
    publish_vectors(lake, "text", {"t1": [0, 1]})
    with pytest.raises(StorageError, match="another emb_text; train the night again"):
        load_recommenders(lake, DAY, ["popularity"], INPUTS)


def test_a_missing_model_says_what_to_run(lake: Lake) -> None:
    with pytest.raises(StorageError, match="model_ease has no partition"):
        load_recommenders(lake, DAY, ["ease"], INPUTS)
    with pytest.raises(StorageError, match="model_ease has no partition"):
        load_arrays(lake, "ease", DAY)


def test_settings_are_those_of_the_latest_search_up_to_the_night(lake: Lake) -> None:
    assert chosen_settings(lake, DAY) == {}
    for day, ridge in ((8, 1.0), (9, 2.0), (11, 3.0)):
        card = {"settings": {"ease": {"ridge": ridge}}}
        lake.publish_files("model_settings", DAY.replace(day=day), files_of_model({}, card))
    assert chosen_settings(lake, DAY) == {"ease": {"ridge": 2.0}}


def test_the_same_model_has_the_same_bytes() -> None:
    state: Arrays = {"b": np.eye(2, dtype=np.float32)[::-1], "a": np.arange(3)}
    assert files_of_model(state, {"x": 1, "y": 2}) == files_of_model(dict(reversed(state.items())), {"y": 2, "x": 1})


def test_models_know_the_vectors_of_all_days_and_tables_that_appear(lake: Lake) -> None:
    publish_vectors(lake, "text", {"t1": [1, 0]}, DAY.replace(day=8))
    publish_vectors(lake, "text", {}, DAY)
    files = files_of_model(Popularity().fit(INPUTS).state(), {"settings": {}})
    lake.publish_files("model_popularity", DAY, files, inputs=made_from(lake, DAY))
    load_recommenders(lake, DAY, ["popularity"], INPUTS)
    publish_vectors(lake, "text", {}, DAY.replace(day=12))
    lake.publish_files("model_settings", DAY, files_of_model({}, {"settings": {}}))
    load_recommenders(lake, DAY, ["popularity"], INPUTS)  # a later day, and settings that serve from the next fit on
    publish_vectors(lake, "text", {"t1": [0, 1]}, DAY.replace(day=8))
    with pytest.raises(StorageError, match="another emb_text"):
        load_recommenders(lake, DAY, ["popularity"], INPUTS)
    publish_vectors(lake, "text", {"t1": [1, 0]}, DAY.replace(day=8))
    publish_vectors(lake, "image", {"i1": [1, 0]}, DAY)
    with pytest.raises(StorageError, match="another emb_image"):
        load_recommenders(lake, DAY, ["popularity"], INPUTS)

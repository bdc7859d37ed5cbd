"""Whole nights with clips and with vectors that users bring, through the Dagster job."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipelines.lake.schemas import vectors_to_numpy
from pipelines.lake.storage import Lake
from tests.conftest import write_config
from tests.test_night import LAST, lake_at, run_job


def rows_of(raw: Path) -> list[dict[str, str]]:
    """The catalogue's lines that are JSON."""
    lines = (raw / "items" / "catalogue.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shop_raw: Path, tiny_models: dict[str, Path]) -> Path:
    """Clips through a tiny image model and MFCC; pictures replaced by a file of vectors with holes."""
    folder = tmp_path_factory.mktemp("modalities")
    ids = [r["item_id"] for r in rows_of(shop_raw)]
    matrix = np.random.default_rng(0).normal(size=(len(ids) - 1, 12)).astype(np.float32)
    matrix[3] = 0
    matrix[5, 2] = np.nan
    np.save(folder / "pictures.npy", matrix)
    (folder / "pictures.ids.txt").write_text("\n".join(ids[:-1]))
    config = write_config(folder, {"text": str(tiny_models["text"]), "image": "pictures.npy"}, raw=shop_raw)
    video = f'[encoders.video]\nmodel = "frames"\nimage = "{tiny_models["image"]}"\naudio = "mfcc"\nframes = 3\n'
    config.write_text(config.read_text().replace('audios = "sound"', 'audios = "sound", videos = "clip"') + video)
    assert run_job(config, LAST).success
    return config


def quarantined(lake: Lake, stage: str) -> Counter[str]:
    return Counter(r["reason"] for r in lake.read("quarantine", LAST).to_pylist() if r["stage"] == stage)


def test_clips_become_vectors_and_torn_ones_are_quarantined(project: Path, shop_raw: Path) -> None:
    lake, catalogue = lake_at(project), rows_of(shop_raw)
    clips = [r["item_id"] for r in catalogue if "clip" in r and r["clip"] != "media/torn.mp4"]
    vectors = vectors_to_numpy(lake.read("emb_video", LAST)["vector"])
    assert vectors.shape == (len(clips), 32 + 79)  # frames and sound
    assert np.abs(np.linalg.norm(vectors[:, 32:], axis=1) - 2**-0.5).max() < 1e-3, "every clip has a sound track"
    media = [r for r in lake.read("std_media", LAST).to_pylist() if r["kind"] == "video"]
    assert {(r["width_px"], r["height_px"]) for r in media} == {(160, 160)}
    assert all(abs(r["duration_s"] - 2) < 0.2 for r in media)
    torn = [r for r in lake.read("quarantine", LAST).to_pylist() if r["source"] == "media/torn.mp4"]
    assert len(torn) == 1
    features = lake.read("feat_items", LAST).to_pylist()
    assert sorted(r["item_id"] for r in features if r["vector_video"] is not None) == sorted(clips)
    assert all(r["attention_video"] > 0 for r in features if r["item_id"] in clips)


def test_given_vectors_enter_unchanged_and_holes_are_quarantined(project: Path, shop_raw: Path) -> None:
    lake, ids = lake_at(project), [r["item_id"] for r in rows_of(shop_raw)]
    given = np.load(project.parent / "pictures.npy")
    assert quarantined(lake, "embed_image") == {"no_vector": 1, "zero_vector": 1, "non_finite_vector": 1}
    manifest = lake.require("emb_image", LAST)
    assert manifest.rows == len(ids) - 3
    assert manifest.spec["files"].keys() >= {"pictures.npy"}
    stored = {r["item_id"]: r["vector_image"] for r in lake.read("feat_items", LAST).to_pylist()}
    assert stored[ids[3]] is None
    assert stored[ids[-1]] is None
    aligned = lake.read("emb_image", LAST)
    unit = given / np.linalg.norm(given, axis=1, keepdims=True)
    best = (vectors_to_numpy(aligned["vector"]) @ np.nan_to_num(unit).T).max(1)
    assert np.abs(best - 1).max() < 1e-5


def test_a_new_file_of_vectors_is_a_new_encoder(project: Path) -> None:
    lake = lake_at(project)
    before = {t: lake.require(t, LAST) for t in ("emb_image", "emb_video")}
    matrix = np.load(project.parent / "pictures.npy")
    matrix[3] = 1
    np.save(project.parent / "pictures.npy", matrix)
    assert run_job(project, LAST).success
    after = {t: lake.require(t, LAST) for t in before}
    assert after["emb_image"].config_digest != before["emb_image"].config_digest
    assert after["emb_image"].rows == before["emb_image"].rows + 1
    assert after["emb_image"].counters["encoded"] == after["emb_image"].rows
    assert after["emb_video"].counters["encoded"] == 0
    assert after["emb_video"].files == before["emb_video"].files

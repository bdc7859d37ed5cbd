"""The embed stage: a bad payload fails alone, a broken encoder fails the night, nothing is encoded twice."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from encoders.base import EncoderSpec
from encoders.device import Device
from encoders.settings import ModelChoice
from encoders.tuning import Tuning
from pipelines.config import Config
from pipelines.embed import embed
from pipelines.engine import chosen
from pipelines.lake.promises import references_embedded
from pipelines.lake.schemas import vectors_to_numpy
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.night.night import Night
from pipelines.sections import Paths
from tests.nights import lake_at, run_job
from tests.shop import FIRST, LAST, write_config


class Awkward:
    """Fails on some texts in every way there is; ``broken`` fails on all."""

    broken = False

    def __init__(self) -> None:
        self.spec = EncoderSpec("text", "awkward", "1", {}, {}, "none", "float32", 4)
        self.device = Device()

    def prepare(self, payload: bytes) -> str:
        text = payload.decode()
        if "crash" in text:
            raise RuntimeError("the processor crashed at <_io.BytesIO object at 0x7f00aa>")
        return text

    def bucket(self, prepared: Any) -> int:
        return 0

    def rows(self, bucket: int) -> int:
        return 8

    def encode(self, prepared: Sequence[str]) -> np.ndarray:
        if self.broken or any("poison" in p for p in prepared):
            raise RuntimeError("device error")
        out = np.tile(np.array([1, 0, 0, 0], np.float32), (len(prepared), 1))
        out[[i for i, p in enumerate(prepared) if "nan" in p]] = np.nan
        return out


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Lake]:
    monkeypatch.setattr(chosen, "load", lambda *args, **kwargs: Awkward())
    monkeypatch.setattr(chosen, "files_of", lambda *a: [])
    monkeypatch.setattr(chosen, "tune", lambda *a: Tuning())
    config = Config(
        paths=Paths(raw=str(tmp_path), data=tmp_path / "data"),
        start_date=FIRST,
        encoders={"text": ModelChoice(model="minilm")},
    )
    lake = Lake(tmp_path / "lake")
    texts = ["one", "two crash", "three poison", "four nan", *(f"text {i}" for i in range(60))]
    empty: dict[str, Any] = dict.fromkeys(c.name for c in TABLES["std_items"].columns)
    empty |= {
        "categories": [],
        "tags": [],
        "image_sha256s": [],
        "audio_sha256s": [],
        "video_sha256s": [],
        "source": "s",
    }
    rows = [empty | {"item_id": str(i), "text": t, "text_sha256": text_sha256(t)} for i, t in enumerate(texts)]
    lake.publish("std_items", FIRST, pa.Table.from_pylist(rows, schema=TABLES["std_items"].schema({})))
    for name in ("std_user_content", "std_media"):
        lake.publish(name, FIRST, TABLES[name].schema({}).empty_table())
    return config, lake


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def encoded(config: Config, lake: Lake) -> Manifest:
    """Embed the texts of the night; the rejects come before the table."""
    rejects, manifest = embed(config, lake, FIRST, "text")
    assert (rejects.table, rejects.step) == ("quarantine", "emb_text")
    return manifest


def missing(config: Config, lake: Lake) -> list[str]:
    return references_embedded(config, Night.of(config, lake, FIRST), "emb_text", lake.read("emb_text", FIRST))


def test_a_bad_payload_fails_alone(night: tuple[Config, Lake]) -> None:
    config, lake = night
    manifest = encoded(config, lake)
    assert (manifest.counters["encoded"], manifest.counters["failed"]) == (61, 3)
    rows = lake.read("quarantine", FIRST).to_pylist()
    found = {r["source"]: (r["stage"], r["reason"]) for r in rows}
    assert found == {
        text_sha256("two crash"): ("embed_text", "prepare_failed"),
        text_sha256("three poison"): ("embed_text", "encode_failed"),
        text_sha256("four nan"): ("embed_text", "non_finite_vector"),
    }
    assert not any("0x7f" in r["detail"] for r in rows), "details are the same every night"
    assert missing(config, lake) == [], "each has a vector or a reason"
    again = encoded(config, lake)
    assert (again.counters["copied"], again.content_digest) == (61, manifest.content_digest)


def test_a_broken_encoder_stops_the_night(night: tuple[Config, Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Awkward, "broken", True)
    with pytest.raises(Exception, match="device error"):
        encoded(*night)
    assert not night[1].days("emb_text")


def test_a_reference_without_vector_or_reason_is_found(night: tuple[Config, Lake]) -> None:
    config, lake = night
    encoded(config, lake)
    table = lake.read("emb_text", FIRST)
    lake.publish("emb_text", FIRST, table.slice(1), config_digest=lake.require("emb_text", FIRST).config_digest)
    assert "1 contents have no vector" in missing(config, lake)[0]


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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

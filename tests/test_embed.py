"""The embed stage: a bad payload fails alone, a broken encoder fails the night, nothing is encoded twice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from encoders.base import EncoderSpec
from encoders.device import Device
from encoders.settings import ModelChoice
from pipelines.config import Config, Paths
from pipelines.embed import embed
from pipelines.engine import chosen
from pipelines.lake.promises import references_embedded
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.night.night import Night
from pipelines.standardize import text_sha256
from tests.conftest import FIRST


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
        out = np.tile(np.float32([1, 0, 0, 0]), (len(prepared), 1))
        out[[i for i, p in enumerate(prepared) if "nan" in p]] = np.nan
        return out


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Lake]:
    monkeypatch.setattr(chosen, "load", lambda *args, **kwargs: Awkward())
    monkeypatch.setattr(chosen, "files_of", lambda *a: [])
    monkeypatch.setattr(chosen, "tune", lambda *a: chosen.Tuning())
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

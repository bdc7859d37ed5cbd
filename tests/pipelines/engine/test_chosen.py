"""Which encoder a night uses: the same one after a code update or a lost cache."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from encoders.settings import ModelChoice
from pipelines.engine import chosen
from pipelines.engine.chosen import Chosen, choice_of, choose, unload
from pipelines.lake.storage import Lake
from pipelines.operation import Compute
from tests import tiny
from tests.payloads import TEXTS
from tests.shop import FIRST


@pytest.fixture
def choice(made: Any) -> ModelChoice:
    return ModelChoice(str(made(tiny.gpt2)))


def chosen_in(folder: Path, choice: ModelChoice, payloads: list[bytes] | None = None) -> Chosen:
    unload()
    sample = TEXTS[:9] if payloads is None else payloads
    return choose("text", choice, Compute(device="cpu", precision="float32"), folder, lambda: sample)


def test_what_was_measured_is_remembered_and_a_lost_cache_gives_the_same_identity(
    choice: ModelChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chosen_in(tmp_path, choice)
    files = list((tmp_path / "encoders").iterdir())
    assert len(files) == 1
    shutil.rmtree(tmp_path / "encoders")
    second = chosen_in(tmp_path, choice)
    assert second.digest == first.digest
    monkeypatch.setattr(chosen, "tune", lambda *args: pytest.fail("measured again"))
    monkeypatch.setattr(chosen, "load", lambda *args: pytest.fail("loaded again"))
    again = chosen_in(tmp_path, choice)
    assert (again.digest, again.device, again.spec) == (second.digest, second.device, second.spec)


def test_the_memory_is_keyed_by_a_version_not_by_the_code(
    choice: ModelChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen_in(tmp_path, choice)
    monkeypatch.setattr("pipelines.lake.storage.code_digest", lambda: "another code")
    chosen_in(tmp_path, choice)
    assert len(list((tmp_path / "encoders").iterdir())) == 1
    monkeypatch.setattr(chosen, "TUNING_VERSION", -1)
    chosen_in(tmp_path, choice)
    assert len(list((tmp_path / "encoders").iterdir())) == 2


def test_nothing_to_measure_on_is_not_remembered_as_measured(choice: ModelChoice, tmp_path: Path) -> None:
    assert chosen_in(tmp_path, choice, []).spec.measured == {}
    assert chosen_in(tmp_path, choice).spec.measured["throughput"]


def test_a_device_gets_its_memory_back(choice: ModelChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    freed: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    unload()
    assert freed == [True]


def test_what_fine_tuning_made_of_the_text_encoder_takes_its_place(tmp_path: Path) -> None:
    lake, own = Lake(tmp_path), ModelChoice("minilm", layer=3)
    card = b'{"trained_on": "2026-03-01"}'
    lake.publish_files("model_finetuned", FIRST, {"card.json": card, "encoder/config.json": b"{}"})
    made = choice_of(lake, FIRST, "text", own, finetuned=True)
    assert (made.model, made.layer) == (str(lake.folder("model_finetuned", FIRST) / "encoder"), 3)
    assert choice_of(lake, FIRST, "image", own, finetuned=True) == own
    assert choice_of(lake, FIRST, "text", own, finetuned=False) == own
    lake.publish_files("model_finetuned", FIRST, {"card.json": card})
    assert choice_of(lake, FIRST, "text", own, finetuned=True) == own, "no gain kept the model"

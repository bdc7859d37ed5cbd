"""Fine-tuning: every method learns, the rest stays frozen, no gain keeps the model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.batching import encode_all
from encoders.catalogue import load
from encoders.device import Device, choose_device
from encoders.errors import EncoderError
from encoders.finetune import CoConsumption, Labels, content_recall, finetune
from encoders.settings import FinetuneSettings, ModelChoice
from tests import tiny

pytestmark = pytest.mark.slow

WORDS = ("ocean wave reef tide", "desert dune sand cactus", "city neon tower street", "forest moss fern oak")


RNG = np.random.default_rng(0)


TEXTS = [" ".join(RNG.permutation(WORDS[i % 4].split())) + f" {i}" for i in range(48)]


THEME = np.arange(48) % 4


@pytest.fixture(scope="module")
def pairs() -> CoConsumption:
    chosen = [(i, j) for i in range(40) for j in range(40) if i != j and THEME[i] == THEME[j]]
    return CoConsumption(np.array(chosen))


def separation(vectors: np.ndarray) -> float:
    """Mean cosine within a theme above that between themes, on items that no pair holds."""
    held = np.arange(40, 48)
    cosine = vectors[held] @ vectors[held].T
    same = (THEME[held][:, None] == THEME[held][None]) & ~np.eye(8, dtype=bool)
    return float(cosine[same].mean() - cosine[THEME[held][:, None] != THEME[held][None]].mean())


SETTINGS = FinetuneSettings(epochs=3, examples=256, batch_size=32, rank=4, patience=3, learning_rate=5e-3)


@pytest.mark.parametrize("method", ["full", "adapter", "lora", "adalora"])
def test_every_method_learns_and_gives_a_new_encoder(
    method: Any, model: Path, pairs: CoConsumption, tmp_path: Path
) -> None:
    choose_device("cpu")
    rate = {"adapter": 0.1, "adalora": 0.03}.get(method, 5e-3)
    settings = replace(SETTINGS, method=method, learning_rate=rate, epochs=5)
    seen: list[np.ndarray] = []

    def evaluate(vectors: np.ndarray) -> float:
        seen.append(vectors)
        return separation(vectors)

    files, card = finetune(ModelChoice(str(model)), TEXTS, pairs, settings, evaluate)
    assert card["best_epoch"] >= 1, card
    losses = [h["train_loss"] for h in card["history"][1:]]
    assert losses[-1] < losses[0]
    assert 0 < card["trained_parameters"] < card["all_parameters"]
    assert 0 < card["frozen_share"] < 1
    assert card["measured"]["peak_memory_mb"] > 0
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    base, made = (load("text", ModelChoice(str(p)), Device()) for p in (model, tmp_path))
    assert base.spec.digest() != made.spec.digest(), "the result re-embeds"
    assert made.spec.preprocessing == base.spec.preprocessing
    vectors = encode_all(made, [made.prepare(t.encode()) for t in TEXTS])
    assert np.abs(vectors - seen[card["best_epoch"]]).max() < 1e-3, "the merged folder is the best epoch"
    again, _ = finetune(ModelChoice(str(model)), TEXTS, pairs, settings, separation)
    assert again == files, "the same bytes again"


def test_lower_layers_stay_frozen(model: Path, pairs: CoConsumption, tmp_path: Path) -> None:
    from safetensors.numpy import load as tensors

    settings = replace(SETTINGS, method="full", train_layers=1, epochs=1)
    files, card = finetune(ModelChoice(str(model)), TEXTS, pairs, settings, separation)
    assert card["best_epoch"] == 1
    old, new = tensors((model / "model.safetensors").read_bytes()), tensors(files["model.safetensors"])
    changed = {n for n in old if not np.array_equal(old[n], new[n])}
    assert changed
    assert all("layer.1." in n for n in changed), changed


def test_no_gain_keeps_the_model(model: Path, pairs: CoConsumption) -> None:
    metrics = iter([0.5, 0.4, 0.3, 0.9])
    files, card = finetune(
        ModelChoice(str(model)), TEXTS, pairs, replace(SETTINGS, patience=2, epochs=9), lambda v: next(metrics)
    )
    assert (files, card["best_epoch"], len(card["history"])) == ({}, 0, 3), "stopped after two epochs without a gain"


def test_labels_have_a_head_and_a_test(model: Path) -> None:
    texts = [f"{WORDS[i % 4]} {i}" for i in range(120)]
    task = Labels(np.arange(120) % 4, np.arange(96), np.arange(96, 120))
    settings = replace(SETTINGS, method="full", epochs=5, learning_rate=3e-3, batch_size=8, patience=5)
    _, card = finetune(ModelChoice(str(model), pooling="mean"), texts, task, settings, lambda v: float(-len(v)))
    first, last = card["history"][1], card["history"][-1]
    assert len(card["history"]) == 6
    assert last["train_loss"] < first["train_loss"]
    assert last["test_loss"] < first["test_loss"]
    assert last["test_accuracy"] > 0.8, "chance is 0.25"


def test_joint_towers_are_refused(tmp_path: Path, pairs: CoConsumption) -> None:
    with pytest.raises(EncoderError, match="no joint tower"):
        finetune(ModelChoice(str(tiny.clip(tmp_path))), TEXTS, pairs, SETTINGS, separation)


def test_content_recall_by_hand() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2]] + 0.01
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    empty = np.zeros(0, np.int64)
    assert content_recall(vectors, [np.array([0]), empty], [np.array([1]), np.array([2])], k=1) == 1.0
    assert content_recall(vectors, [np.array([0])], [np.array([2, 1])], k=1) == 1.0
    assert content_recall(vectors, [np.array([0])], [np.array([4])], k=1) == 0.0

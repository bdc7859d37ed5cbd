"""Shared fixtures: a small shop, a configuration with encoders that need no downloaded weights, real data."""

import os
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from encoders.space.alignment import train_aligner
from encoders.space.features import Features
from pipelines.recommenders.base import Inputs
from tests import tiny
from tests.shop import DAYS, FIRST, unit, write_config
from tests.worlds import GROUPS, ITEMS, SETTINGS, USERS, N, Trained, World

os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of real architectures, written with save_pretrained and loaded by the real code path."""
    from transformers import (
        BertConfig,
        BertModel,
        BertTokenizerFast,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
    )

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(chr(c) for c in range(97, 123)),
        *(f"##{chr(c)}" for c in range(97, 123)),
    ]
    (root / "vocab.txt").write_text("\n".join(words))
    text = root / "text"
    BertTokenizerFast(vocab_file=str(root / "vocab.txt"), model_max_length=64).save_pretrained(text)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(text)
    image = root / "image"
    ViTModel(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            image_size=32,
            patch_size=8,
        )
    ).save_pretrained(image)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(image)
    audio = root / "audio"
    wave = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16, 16),
        conv_stride=(40, 8),
        conv_kernel=(80, 8),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    Wav2Vec2Model(wave).save_pretrained(audio)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(audio)
    return {"text": text, "image": image, "audio": audio}


@pytest.fixture(scope="session")
def shop_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw folder of a small shop. Never modify it; copy it first."""
    from demo.shop import Size, generate

    raw = tmp_path_factory.mktemp("shop") / "raw"
    generate(raw, FIRST, Size(items=60, users=40, days=DAYS))
    return raw


@pytest.fixture
def shop(tmp_path: Path, shop_raw: Path, tiny_models: dict[str, Path]) -> Path:
    """Configuration file of a fresh project over the shop's raw folder, with tiny encoders."""
    models = {"text": str(tiny_models["text"]), "image": str(tiny_models["image"]), "audio": "mfcc"}
    return write_config(tmp_path, models, raw=shop_raw)


@pytest.fixture
def day() -> Callable[[int], date]:
    """Day n of the shop."""
    return lambda n: FIRST + timedelta(days=n)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Users of four tastes; content says the taste; one user and one item without any event."""
    rng = np.random.default_rng(0)
    taste = np.arange(ITEMS) % 4
    likes = rng.random((USERS, ITEMS)) < np.where(taste[None] == (np.arange(USERS) % 4)[:, None], 0.2, 0.01)
    likes[5], likes[:, 7] = False, False
    vectors = unit(rng, 4, 24)[taste] + 0.5 * unit(rng, ITEMS, 24)
    content = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Inputs(sparse.csr_matrix(likes.astype(np.float32)), {"image": content})


@pytest.fixture(scope="module")
def world() -> World:
    """Items of four groups; both modalities say the group in their own way; users stay within a group."""
    rng = np.random.default_rng(0)
    group = np.arange(N) % GROUPS
    features = {}
    for m, d in (("text", 24), ("image", 40)):
        x = unit(rng, GROUPS, d)[group] + 0.5 * unit(rng, N, d)
        present = rng.random(N) < 0.8
        features[m] = Features((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), present)
    histories = [rng.permutation(np.flatnonzero(group == u % GROUPS))[:12] for u in range(80)]
    return features, histories, group


@pytest.fixture(scope="module")
def trained(world: World) -> Trained:
    features, histories, _ = world
    return train_aligner(features, histories, SETTINGS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], Path]], Path]:
    """Folder of a tiny model, made once."""

    root, known = tmp_path_factory.mktemp("tiny"), {}

    def make(build: Callable[[Path], Path]) -> Path:
        name = build.__name__
        if name not in known:
            torch.manual_seed(0)
            (root / name).mkdir()
            known[name] = build(root / name)
        return known[name]

    return make


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    (folder / "x").mkdir()
    return tiny.sentence_bert(folder / "x")

"""Shared fixtures: a small shop, a configuration with encoders that need no downloaded weights, real data."""

import json
import os
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parent.parent
REAL_DATA = REPO.parent / "shared" / "data"
FIRST = date(2026, 3, 1)
DAYS = 5

os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def real_data(name: str) -> Path:
    """Folder of a real data set, or a visible skip where it is not there."""
    folder = REAL_DATA / name
    if not folder.exists():
        pytest.skip(f"real data set '{name}' is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of real architectures, written with save_pretrained and loaded by the real code path."""
    import torch
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


def write_config(folder: Path, models: dict[str, str], extra: str = "", raw: Path | None = None) -> Path:
    """A configuration for the generated shop in ``folder``."""
    encoders = "\n".join(f'[encoders.{m}]\nmodel = "{path}"' for m, path in models.items())
    path = folder / "nightloom.toml"
    path.write_text(
        f"""
start_date = {FIRST}
[paths]
raw = "{raw or folder / "raw"}"
data = "data"
[interactions]
columns = {{ user_id = "uid", event_at = "ts", value = "amount" }}
[items]
columns = {{ title = "name", description = "about", images = "image", audios = "sound" }}
[aligner]
dim = 16
steps = 12
batch_size = 32
[recommend]
k = 20
{extra}
{encoders}
"""
    )
    return path


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


def parquet_bytes(root: Path) -> dict[str, bytes]:
    """Content of every visible Parquet and model file below ``root``."""
    files = [
        p
        for p in root.rglob("*")
        if p.suffix in (".parquet", ".safetensors") and "/." not in str(p.relative_to(root.parent))
    ]
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(files)}


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    """Rows as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Random unit rows."""
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)

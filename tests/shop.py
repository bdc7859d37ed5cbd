"""The small shop that tests run nights on, and files around it."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parent.parent
FIRST = date(2026, 3, 1)
DAYS = 5
LAST = FIRST + timedelta(days=DAYS - 1)


def real_data(name: str) -> Path:
    """Folder of a real data set below ``NIGHTLOOM_TEST_DATA``, or a skip that is counted where it is not there."""
    root = os.environ.get("NIGHTLOOM_TEST_DATA", "")
    if not root or not (Path(root) / name).exists():
        pytest.skip(f"real data set '{name}' is not in NIGHTLOOM_TEST_DATA ({root or 'not set'})")
    return Path(root).resolve() / name


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


def parquet_bytes(root: Path) -> dict[str, bytes]:
    """Content of every visible Parquet and model file below ``root``."""
    files = [
        p
        for p in root.rglob("*")
        if p.suffix in (".parquet", ".safetensors") and "/." not in str(p.relative_to(root.parent))
    ]
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(files)}


def write_jsonl(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Rows as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Random unit rows."""
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)

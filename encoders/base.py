"""What an encoder is: its protocol, its identity, and where it runs.

Belongs here: ``EncoderSpec`` and its digest, the ``Encoder`` protocol, ``load``, the choice of device (made here,
once). Does not: decoding, models, pooling (``text``, ``image``, ``audio``, ``video``), precision and batch size
(``tuning``).
Heavy imports happen inside functions, so that configuration and Dagster can import this module for free.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from encoders.device import Device

Modality = Literal["text", "image", "audio", "video"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "audio", "video")


class EncoderError(RuntimeError):
    """An encoder cannot be loaded or run; the message says which one, and what to do."""


class DecodeError(ValueError):
    """One payload cannot be used; it is quarantined and the rest of the night goes on.

    Args:
        reason: short code for the quarantine table.
        detail: what was found.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def cause_of(error: Exception) -> str:
    """An error of a decoder in one line, without memory addresses: the same file gives the same text every night."""
    text = re.sub(r"<?_io\.BytesIO object at 0x[0-9a-f]+>?", "the file", str(error))
    return f"{type(error).__name__}: {re.sub(r'0x[0-9a-f]{6,}', '0x...', text)[:200]}"


@dataclass(frozen=True)
class ModelChoice:
    """What a user asks for; everything but the model has a default that the model's own files decide.

    Attributes:
        model: built-in name, Hugging Face id, local folder, or a .npy/.parquet file of precomputed vectors.
        revision: hub commit, tag or branch.
        layer: hidden state that is pooled, counted as Hugging Face does (0 the embeddings, -1 the last layer).
        pooling: mean, cls, max, lasttoken, weightedmean or mean_sqrt_len_tokens (text); mean or cls (image).
        prompt: instruction put before each text.
        image: model of a video's frames.
        audio: model of a video's sound track; empty for none.
        frames: frames sampled from a video.
    """

    model: str
    revision: str | None = None
    layer: int | None = None
    pooling: str | None = None
    prompt: str | None = None
    image: str = "efficientnet-lite0"
    audio: str = "musicnn"
    frames: int = 8


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that decides what vector a payload gets.

    Attributes:
        modality: text, image, audio or video.
        model: built-in name, Hugging Face id or local folder.
        revision: commit of a hub model; the package version of a carrier.
        files: sha256 of each weight and preprocessing file.
        preprocessing: decode and prepare settings, version included.
        pooling: how token or patch vectors become one.
        dtype: precision of the forward pass.
        dim: length of the vector.
        space: "own", or "shared" where the model's other tower embeds another modality into the same space.
        sequence: (steps, features) of a vector that is a flat sequence for the aligner's RNN; zero steps are padding.
        fixed_batch: rows of every batch where the device's kernels depend on it, else 0.
        measured: what led to ``dtype`` and the batch size; no part of the digest.
    """

    modality: Modality
    model: str
    revision: str
    files: dict[str, str]
    preprocessing: dict[str, Any]
    pooling: str
    dtype: str
    dim: int
    space: str = "own"
    sequence: tuple[int, int] | None = None
    fixed_batch: int = 0
    measured: dict[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """16 hex characters that change when any stored vector could change."""
        identity = asdict(self)
        identity.pop("measured")
        if self.files:  # the files' hashes say it all: a folder that moves keeps its vectors
            identity.pop("model")
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Encoder(Protocol):
    """Payloads in, unit vectors out."""

    spec: EncoderSpec
    device: "Device"

    def prepare(self, payload: bytes) -> Any:
        """Decode one payload. Called by several threads at once.

        Raises:
            DecodeError: the payload cannot be used.
        """

    def bucket(self, prepared: Any) -> int:
        """Payloads of one bucket may share a batch; the padded length for text."""

    def rows(self, bucket: int) -> int:
        """Payloads of a bucket that make a full batch on the device."""

    def encode(self, prepared: Sequence[Any]) -> np.ndarray:
        """Float32 array (n, dim), L2 norm 1, row i for payload i. All from one bucket; called by several threads."""


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows scaled to L2 norm 1, float32. A zero row (nothing to say) becomes the first axis."""
    x = np.asarray(x, np.float64)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    zero = norm[:, 0] < 1e-12
    x = x / np.where(norm < 1e-12, 1.0, norm)
    x[zero, 0] = 1.0
    return x.astype(np.float32)

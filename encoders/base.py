"""What an encoder is: its protocol, its identity, and where it runs.

Belongs here: ``EncoderSpec`` and its digest, the ``Encoder`` protocol, ``load``, the choice of device (made here,
once). Does not: decoding, models, pooling (``text``, ``image``, ``audio``, ``video``), precision and batch size
(``tuning``).
Heavy imports happen inside functions, so that configuration and Dagster can import this module for free.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from encoders.device import Device
from encoders.modalities import Modality


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

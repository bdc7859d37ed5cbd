"""What a user may set of encoders and of the unified space: keys, defaults, ranges, meanings, each in one place.

The configuration file takes these as its sections. Does not belong here: anything that runs.
"""

from dataclasses import fields
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

VECTOR_FILES = (".npy", ".parquet")
STRICT = ConfigDict(extra="forbid")

FusionKind = Literal["transformer", "attention", "gated", "mlp", "cca", "procrustes", "ridge"]


@dataclass(frozen=True, config=STRICT)
class ModelChoice:
    """Which model embeds a modality, and how; what is not set is decided by the model's own files."""

    model: str = Field(description="built-in name, Hugging Face id, local folder, .npy or .parquet of vectors")
    revision: str | None = Field(default=None, description="hub commit, tag or branch")
    layer: int | None = Field(
        default=None, description="hidden state that is pooled, 0 the embeddings, -1 the last layer"
    )
    pooling: str | None = Field(
        default=None,
        description="mean, cls, max, lasttoken, weightedmean, mean_sqrt_len_tokens (text); mean, cls (image)",
    )
    prompt: str | None = Field(default=None, description="instruction before each text")
    image: str = Field(default="efficientnet-lite0", description="model of a video's frames")
    audio: str = Field(default="musicnn", description="model of a video's sound track; empty for none")
    frames: int = Field(default=8, ge=1, le=256, description="frames sampled from a video")

    @property
    def is_vectors(self) -> bool:
        """Whether the vectors are precomputed and belong to items, not to content."""
        return self.model.endswith(VECTOR_FILES)


@dataclass(frozen=True, config=STRICT)
class AlignerSettings:
    """The shared space and its training."""

    kind: FusionKind = Field(default="gated", description="the last three are found in closed form, without training")
    dim: int = Field(default=128, ge=8, le=1024, description="length of fused vectors")
    layers: int = Field(default=1, ge=1, le=8)
    heads: int = Field(default=4, ge=1, le=16)
    steps: int = Field(default=400, ge=1, description="optimizer steps a night")
    batch_size: int = Field(default=256, ge=4)
    learning_rate: float = Field(default=1e-3, gt=0)
    modality_dropout: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="weight of losses in which items lack one modality, each in turn, unless they have no other",
    )
    seed: int = 0

    @model_validator(mode="after")
    def _divisible(self) -> "AlignerSettings":
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        return self


@dataclass(frozen=True, config=STRICT)
class FinetuneSettings:
    """What of the text encoder is trained, and how long."""

    method: Literal["full", "adapter", "lora", "adalora"] = Field(default="lora", description="adapter is (IA)3")
    rank: int = Field(default=8, ge=1)
    train_layers: int = Field(default=2, ge=1, description="top layers that are trained, the others stay frozen")
    epochs: int = Field(default=5, ge=1)
    examples: int = Field(default=2048, ge=2, description="pairs or items of an epoch")
    batch_size: int = Field(default=32, ge=2)
    max_tokens: int = Field(default=64, ge=4, description="training cuts texts here; encoding does not")
    learning_rate: float | None = Field(default=None, gt=0, description="none chooses by method")
    patience: int = Field(default=2, ge=1, description="epochs without a better validation before it stops")
    seed: int = 0


def values_of(settings: Any, section: type) -> dict[str, Any]:
    """Name -> value of the fields that ``section`` declares; those that a subclass adds are left out."""
    return {f.name: getattr(settings, f.name) for f in fields(section)}

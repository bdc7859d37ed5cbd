"""What an encoder is: its protocol, its identity, and where it runs.

Belongs here: ``EncoderSpec`` and its digest, the ``Encoder`` protocol, ``load``, the choice of device (made here,
once). Does not: decoding, models, pooling (``text``, ``image``, ``audio``, ``video``), precision and batch size
(``tuning``).
Heavy imports happen inside functions, so that configuration and Dagster can import this module for free.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from encoders.weights import CARRIERS, file_sha256, weights_dir

if TYPE_CHECKING:
    import torch

Modality = Literal["text", "image", "audio", "video"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "audio", "video")

# Name in a config file -> (modality, carrier or None). The ones without a carrier need no weights.
BUILTIN: dict[str, tuple[Modality, str | None]] = {
    "minilm": ("text", "minilm"),
    "efficientnet-lite0": ("image", "efficientnet-lite0"),
    "patch-rnn": ("image", None),
    "musicnn": ("audio", "musicnn"),
    "mfcc": ("audio", None),
    "mfcc-rnn": ("audio", None),
    "frames": ("video", None),
}
VECTOR_FILES = (".npy", ".parquet")


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


def quiet_transformers() -> None:
    """No progress bars of model loading between our own."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


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


@dataclass(frozen=True)
class Device:
    """Where tensors live, in which precision the forward pass runs, and how much of it at once.

    Attributes:
        name: torch device string.
        dtype: name of a torch dtype.
        batch: tokens (text) or rows (all else) of one forward pass; found by ``tuning``.
        fixed: every batch has exactly that shape, because the device's kernels depend on it.
    """

    name: str = "cpu"
    dtype: str = "float32"
    batch: int = 1
    fixed: bool = False

    def torch_dtype(self) -> "torch.dtype":
        """The torch dtype object."""
        import torch

        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.dtype]

    @property
    def fixed_batch(self) -> int:
        """What ``EncoderSpec.fixed_batch`` holds on this device."""
        return self.batch if self.fixed else 0


def one_thread() -> None:
    """One stream of work a thread: results and timings do not depend on the machine's cores."""
    import torch

    torch.set_num_threads(1)


@contextmanager
def single_threaded() -> Iterator[None]:
    """While our threads share the cores, matrix libraries start none of their own.

    Idle threads of theirs spin, which costs as much as the work, and results would depend on the number of cores.
    """
    one_thread()
    with threadpool_limits(1, user_api="blas"):
        yield


def choose_device(name: str = "auto", precision: str = "float32") -> Device:
    """Resolve the configured device; never falls back to the CPU in silence.

    Args:
        name: ``auto`` (CUDA when there, else CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: a dtype name.

    Raises:
        EncoderError: CUDA was asked for and is not there.
    """
    import torch

    one_thread()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EncoderError(
            f"compute.device = '{name}', but torch {torch.__version__} sees no CUDA device. "
            "Install a CUDA build of torch, or set compute.device to 'cpu' or 'auto'."
        )
    return Device(name, precision)


@dataclass(frozen=True)
class ModelFiles:
    """Files of one model on local disk.

    Attributes:
        folder: where they are.
        revision: version or commit.
        sha256: file name -> sha256.
    """

    folder: Path
    revision: str
    sha256: dict[str, str] = field(default_factory=dict)


def check_model(modality: Modality, choice: ModelChoice) -> list[str]:
    """Say what is wrong with a configured model; nothing when it can be used. Loads no weights.

    Args:
        modality: what it should embed.
        choice: the model and its options.
    """
    model = choice.model
    if modality == "video" and model == "frames":
        parts: list[tuple[Modality, str]] = [("image", choice.image), ("audio", choice.audio)]
        return [p for m, name in parts if name for p in check_model(m, ModelChoice(name))]
    if model in BUILTIN:
        expected, carrier = BUILTIN[model]
        if expected != modality:
            return [f"encoder '{model}' embeds {expected}, not {modality}"]
        try:
            if carrier:
                weights_dir(carrier)
        except RuntimeError as e:
            return [str(e)]
        return []
    if model.endswith(VECTOR_FILES):
        from encoders.vectors import VectorFile

        try:
            VectorFile(modality, choice, Device())
        except EncoderError as e:
            return [str(e)]
        return []
    names = ", ".join(sorted(k for k, v in BUILTIN.items() if v[0] == modality))
    try:
        _hub_config(model, choice.revision)
    except Exception as e:  # every way a hub lookup fails is the same configuration error
        return [
            f"encoder '{model}' is not a built-in ({names}), not a local folder with config.json, not a "
            f".npy or .parquet file, and not a reachable Hugging Face model ({cause_of(e).splitlines()[0]})"
        ]
    return []


def _hub_config(model: str, revision: str | None) -> Path:
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file():
        return folder / "config.json"
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model, "config.json", revision=revision))


def model_files(model: str, revision: str | None = None) -> ModelFiles:
    """Find a model's files: pip-carried, local folder or Hugging Face hub (downloaded when not cached).

    Raises:
        EncoderError: the model cannot be found.
    """
    if model in BUILTIN:
        carrier = BUILTIN[model][1]
        if carrier is None:
            return ModelFiles(Path(), "1")
        c = CARRIERS[carrier]
        return ModelFiles(weights_dir(carrier), c.requirement.split("==")[1], dict(c.members))
    if model.endswith(VECTOR_FILES):
        path = Path(model).expanduser()
        if not path.is_file():
            raise EncoderError(f'no vector file {path}; it should hold one row an item, see README "Encoders"')
        return ModelFiles(path.parent, "local", {path.name: file_sha256(path)})
    folder = Path(model).expanduser()
    found = revision or "local"
    if not (folder / "config.json").is_file():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(
                snapshot_download(
                    model, revision=revision, allow_patterns=["*.json", "*.txt", "*.safetensors", "*.model"]
                )
            )
        except Exception as e:
            raise EncoderError(f"cannot load encoder '{model}' (revision {revision}): {e}") from e
        found = folder.name
    names = sorted(p for p in folder.rglob("*") if p.suffix in {".json", ".txt", ".safetensors", ".model"})
    return ModelFiles(folder, found, {str(p.relative_to(folder)): file_sha256(p) for p in names})


def load_pretrained(
    modality: Modality, choice: ModelChoice, device: Device, prepared_by: str, **options: Any
) -> tuple[ModelFiles, Any, Any]:
    """Load a Hugging Face model and what prepares its inputs from a local folder or the hub.

    Args:
        modality: for the message.
        choice: the model.
        device: decides the precision; the network is still on the CPU.
        prepared_by: name of the transformers class: AutoTokenizer, AutoImageProcessor or AutoFeatureExtractor.
        options: arguments of that class.

    Returns:
        Files, the tokenizer or processor, and the network.

    Raises:
        EncoderError: one of them cannot be loaded.
    """
    import transformers

    quiet_transformers()
    files = model_files(choice.model, choice.revision)
    try:
        prepare = getattr(transformers, prepared_by).from_pretrained(files.folder, **options)
        return files, prepare, transformers.AutoModel.from_pretrained(files.folder, dtype=device.torch_dtype())
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise EncoderError(f"cannot load {modality} encoder '{choice.model}' from {files.folder}: {e}") from e


def load(modality: Modality, choice: ModelChoice, device: Device) -> Encoder:
    """Load the encoder of a configured model.

    Args:
        modality: text, image, audio or video.
        choice: the model and its options.
        device: where it runs.

    Raises:
        EncoderError: it cannot be loaded.
    """
    if choice.model.endswith(VECTOR_FILES):
        from encoders.vectors import VectorFile

        return VectorFile(modality, choice, device)
    if modality == "text":
        from encoders.text import TextEncoder

        return TextEncoder(choice, device)
    if modality == "image":
        from encoders.image import load_image

        return load_image(choice, device)
    if modality == "audio":
        from encoders.audio import load_audio

        return load_audio(choice, device)
    from encoders.video import load_video

    return load_video(choice, device)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows scaled to L2 norm 1, float32. A zero row (nothing to say) becomes the first axis."""
    x = np.asarray(x, np.float64)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    zero = norm[:, 0] < 1e-12
    x = x / np.where(norm < 1e-12, 1.0, norm)
    x[zero, 0] = 1.0
    return x.astype(np.float32)

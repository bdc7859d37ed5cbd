"""Files of a model on local disk: carried by pip, a folder, a hub snapshot, or a file of vectors.

Belongs here: finding, hashing and loading them. Does not: which encoder a name stands for (``catalogue``).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoders.carried.weights import CARRIERS, file_sha256, weights_dir
from encoders.device import Device
from encoders.errors import EncoderError
from encoders.modalities import Modality
from encoders.settings import VECTOR_FILES, ModelChoice

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # never read: they can run code
NOT_LOADED = {*PICKLED, ".md", ".h5", ".msgpack", ".onnx", ".ot", ".png", ".jpg", ".gitattributes", ".gitignore"}
DOWNLOADED = ["*.json", "*.txt", "*.safetensors", "*.model", "*.tiktoken"]


def quiet_transformers() -> None:
    """No progress bars of model loading between our own."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


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


def hub_config(model: str, revision: str | None) -> Path:
    """``config.json`` of a local folder, else of the hub."""
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
    if model in CARRIERS:
        c = CARRIERS[model]
        return ModelFiles(weights_dir(model), c.requirement.split("==")[1], dict(c.members))
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
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=DOWNLOADED))
        except Exception as e:
            raise EncoderError(f"cannot load encoder '{model}' (revision {revision}): {e}") from e
        found = folder.name
    if problem := pickled_weights(folder):
        raise EncoderError(f"encoder '{model}': {problem}")
    names = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in NOT_LOADED)
    return ModelFiles(folder, found, {str(p.relative_to(folder)): file_sha256(p) for p in names})


def pickled_weights(folder: Path) -> str:
    """What is wrong with the weights of a model folder, empty where they can be read without unpickling."""
    if any(folder.glob("*.safetensors")):
        return ""
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
    there = f"has {', '.join(pickled)}, which only a pickle reader opens" if pickled else "has no weights"
    return (
        f"{folder} {there}; expected model.safetensors. Save the model again with "
        "save_pretrained(folder, safe_serialization=True)"
    )


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
        net = transformers.AutoModel.from_pretrained(files.folder, dtype=device.torch_dtype(), use_safetensors=True)
        return files, prepare, net
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise EncoderError(f"cannot load {modality} encoder '{choice.model}' from {files.folder}: {e}") from e

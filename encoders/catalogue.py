"""Name of a model -> its encoder: the one list.

Belongs here: built-in names, checking a choice, loading it. Does not: any model (``text``, ``image``, ``audio``,
``video``, ``vectors``), which are imported when one is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from encoders.base import Encoder
from encoders.carried.weights import CARRIERS, weights_dir
from encoders.device import Device
from encoders.errors import EncoderError, cause_of
from encoders.files import hub_config, model_files, pickled_weights
from encoders.modalities import Modality
from encoders.settings import VECTOR_FILES, ModelChoice

Loader = Callable[[ModelChoice, Device], Encoder]


@dataclass(frozen=True)
class Builtin:
    """An encoder that needs no hub.

    Attributes:
        modality: what it embeds.
        load: loads it; weights of the same name are in ``carried.weights.CARRIERS``, where it has any.
    """

    modality: Modality
    load: Loader


def _text(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.text import TextEncoder

    return TextEncoder(choice, device)


def _lite0(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.image import EfficientNetLite0

    return EfficientNetLite0(device)


def _patches(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.image import PatchRows

    return PatchRows(device)


def _musicnn(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.audio import Musicnn

    return Musicnn(device)


def _mfcc(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.audio import MfccStatistics

    return MfccStatistics(device)


def _mfcc_frames(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.audio import MfccFrames

    return MfccFrames(device)


def _frames(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.video import FrameEncoder

    image = load("image", ModelChoice(choice.image), device)
    audio = load("audio", ModelChoice(choice.audio), device) if choice.audio else None
    return FrameEncoder(image, audio, choice.frames, device)


def _hub_image(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.image import HubImageEncoder

    return HubImageEncoder(choice, device)


def _hub_audio(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.audio import HubAudioEncoder

    return HubAudioEncoder(choice, device)


def _hub_video(choice: ModelChoice, device: Device) -> Encoder:
    from encoders.video import HubVideoEncoder

    return HubVideoEncoder(choice, device)


BUILTIN: dict[str, Builtin] = {
    "minilm": Builtin("text", _text),
    "efficientnet-lite0": Builtin("image", _lite0),
    "patch-rnn": Builtin("image", _patches),
    "musicnn": Builtin("audio", _musicnn),
    "mfcc": Builtin("audio", _mfcc),
    "mfcc-rnn": Builtin("audio", _mfcc_frames),
    "frames": Builtin("video", _frames),
}
HUB: dict[Modality, Loader] = {"text": _text, "image": _hub_image, "audio": _hub_audio, "video": _hub_video}


def parts_of(choice: ModelChoice) -> list[tuple[Modality, ModelChoice]]:
    """The models inside a choice: those of a video's frames and sound track; none of any other."""
    if choice.model != "frames":
        return []
    parts: list[tuple[Modality, str]] = [("image", choice.image), ("audio", choice.audio)]
    return [(m, ModelChoice(name)) for m, name in parts if name]


def check_model(modality: Modality, choice: ModelChoice) -> list[str]:
    """Say what is wrong with a configured model; nothing when it can be used. Loads no weights.

    Args:
        modality: what it should embed.
        choice: the model and its options.
    """
    model, builtin = choice.model, BUILTIN.get(choice.model)
    if builtin:
        if builtin.modality != modality:
            return [f"encoder '{model}' embeds {builtin.modality}, not {modality}"]
        try:
            if model in CARRIERS:
                weights_dir(model)
        except RuntimeError as e:
            return [str(e)]
        return [p for m, part in parts_of(choice) for p in check_model(m, part)]
    if model.endswith(VECTOR_FILES):
        from encoders.vectors import VectorFile

        try:
            VectorFile(modality, choice, Device())
        except EncoderError as e:
            return [str(e)]
        return []
    names = ", ".join(sorted(k for k, v in BUILTIN.items() if v.modality == modality))
    try:
        config = hub_config(model, choice.revision)
    except Exception as e:  # every way a hub lookup fails is the same configuration error
        return [
            f"encoder '{model}' is not a built-in ({names}), not a local folder with config.json, not a "
            f".npy or .parquet file, and not a reachable Hugging Face model ({cause_of(e).splitlines()[0]})"
        ]
    local = config.parent == Path(model).expanduser()  # of a hub model the weights are not here yet
    return [f"encoder '{model}': {problem}"] if local and (problem := pickled_weights(config.parent)) else []


def files_of(choice: ModelChoice) -> list[dict[str, str]]:
    """File name -> sha256 of each model that a choice loads; empty for one without weights."""
    models = [choice, *(part for _, part in parts_of(choice))]
    without = BUILTIN.keys() - CARRIERS.keys()
    return [{} if c.model in without else model_files(c.model, c.revision).sha256 for c in models]


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
    builtin = BUILTIN.get(choice.model)
    return (builtin.load if builtin else HUB[modality])(choice, device)

"""The modalities: one record each, from which columns, probes and defaults elsewhere derive.

A new modality is a record here, its encoder in ``catalogue``, and a decoder in ``decode``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

Modality = str
Probe = Callable[[bytes], dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """One modality.

    Attributes:
        name: in configuration files, column and table names.
        noun: what one payload is called in descriptions and messages.
        default_encoder: model that embeds it where the configuration names none.
        raw_column: column of ``items/`` that refers to its files; empty where the payload is the text of the item.
        probe: facts of a file that decodes (format, size, length); raises ``DecodeError`` for others.
    """

    name: Modality
    noun: str
    default_encoder: str
    raw_column: str = ""
    probe: Probe | None = None

    @property
    def is_file(self) -> bool:
        """Whether its payloads are files."""
        return bool(self.raw_column)

    @property
    def sha_column(self) -> str:
        """Column of ``std_items`` with the content: one sha256 of a text, a list of them for files."""
        return f"{self.name}_sha256s" if self.is_file else f"{self.name}_sha256"


def _image(data: bytes) -> dict[str, Any]:
    from encoders.decode.image import probe_image

    return probe_image(data)


def _audio(data: bytes) -> dict[str, Any]:
    from encoders.decode.sound import probe_audio

    return probe_audio(data)


def _video(data: bytes) -> dict[str, Any]:
    from encoders.decode.video import probe_video

    return probe_video(data)


KINDS: Final[dict[Modality, Kind]] = {
    k.name: k
    for k in (
        Kind("text", "text", "minilm"),
        Kind("image", "image", "efficientnet-lite0", "images", _image),
        Kind("audio", "sound", "musicnn", "audios", _audio),
        Kind("video", "video", "frames", "videos", _video),
    )
}
MODALITIES: Final[tuple[Modality, ...]] = tuple(KINDS)
FILES: Final[tuple[Kind, ...]] = tuple(k for k in KINDS.values() if k.is_file)


def known_modality(name: str) -> str:
    """The name of a modality.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in KINDS:
        raise ValueError(f"'{name}' is no modality; known are {', '.join(KINDS)}")
    return name

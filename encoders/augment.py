"""Seeded augmentation of payloads: another picture, sound or text that means the same.

A view is a function of (content, op, epoch): any view of any night can be made again. Views are bytes like the payload
that they come from, so every encoder takes them. Belongs here: the ops. Does not: what views are for (training only).
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from encoders.decode.image import decode_image
from encoders.decode.sound import decode_audio, resample
from encoders.modalities import Modality

if TYPE_CHECKING:
    from PIL import Image

VERSION = 1  # raise it when an op changes


def generator(content: str, op: str, epoch: int) -> np.random.Generator:
    """The random numbers of one op on one content in one epoch."""
    digest = hashlib.sha256(f"{content}\0{op}\0{epoch}\0{VERSION}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


# --- pictures ---------------------------------------------------------------------------------------------------


def rotate(image: "Image.Image", rng: np.random.Generator) -> "Image.Image":
    """Turn by up to 15 degrees; the corners take the mean colour."""
    from PIL import Image

    mean = tuple(int(c) for c in np.asarray(image, np.float32).mean((0, 1)))
    return image.rotate(float(rng.uniform(-15, 15)), Image.Resampling.BICUBIC, fillcolor=mean)


def crop(image: "Image.Image", rng: np.random.Generator) -> "Image.Image":
    """Keep a random 60 to 100% of the area, width to height changed by up to a quarter."""
    area, ratio = rng.uniform(0.6, 1.0), np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    width = min(image.width, max(1, round(image.width * np.sqrt(area * ratio))))
    height = min(image.height, max(1, round(image.height * np.sqrt(area / ratio))))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def scale(image: "Image.Image", rng: np.random.Generator) -> "Image.Image":
    """Shrink to 50 to 100% of the size: finer detail is lost."""
    factor = rng.uniform(0.5, 1.0)
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def flip(image: "Image.Image", rng: np.random.Generator) -> "Image.Image":
    """Mirror left and right, every second time."""
    from PIL import ImageOps

    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def colour(image: "Image.Image", rng: np.random.Generator) -> "Image.Image":
    """Change brightness, contrast and saturation by up to 30% each."""
    from PIL import ImageEnhance

    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(0.7, 1.3)))
    return image


# --- sounds: waveform (samples,) and rate in Hz -------------------------------------------------------------------


FFT, HOP = 1024, 256


def _spectrum(wave: np.ndarray) -> np.ndarray:
    import librosa

    return librosa.stft(wave, n_fft=min(FFT, len(wave)), hop_length=HOP)


def _wave(spectrum: np.ndarray, length: int) -> np.ndarray:
    import librosa

    return librosa.istft(spectrum, hop_length=HOP, length=length, n_fft=2 * (len(spectrum) - 1))


def denoise(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Spectral gate: bins near the noise floor of their band (20th percentile over time) lose 12 dB."""
    spectrum = _spectrum(wave)
    size = np.abs(spectrum)
    floor = np.quantile(size, 0.2, axis=1, keepdims=True)
    return _wave(spectrum * np.where(size < rng.uniform(3.0, 5.0) * floor, 0.25, 1.0), len(wave))


def speed(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Play 10% slower to 10% faster; the pitch moves along."""
    return resample(wave, rate, max(1000, round(rate / rng.uniform(0.9, 1.1))))


def pitch(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Move the pitch by up to two semitones; the length stays."""
    from librosa.effects import pitch_shift

    steps = float(rng.uniform(-2, 2))
    return pitch_shift(wave, sr=rate, n_steps=steps, n_fft=min(2048, len(wave)))


def noise(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Add white noise 15 to 30 dB below the sound."""
    power = float(np.sqrt(np.mean(wave**2))) * 10 ** (-rng.uniform(15, 30) / 20)
    return wave + power * rng.standard_normal(len(wave)).astype(np.float32)


def time_mask(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Silence one stretch of up to a fifth of the clip."""
    out, size = wave.copy(), int(len(wave) * rng.uniform(0.0, 0.2))
    start = int(rng.integers(len(wave) - size + 1))
    out[start : start + size] = 0.0
    return out


def frequency_mask(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Remove one band of up to a tenth of the spectrum (SpecAugment, https://arxiv.org/abs/1904.08779)."""
    spectrum = _spectrum(wave)
    size = int(len(spectrum) * rng.uniform(0.0, 0.1))
    start = int(rng.integers(len(spectrum) - size + 1))
    spectrum[start : start + size] = 0.0
    return _wave(spectrum, len(wave))


# --- text -------------------------------------------------------------------------------------------------------


def word_drop(words: list[str], rng: np.random.Generator) -> list[str]:
    """Leave out each word with a chance of 10 to 30%."""
    kept = rng.random(len(words)) >= rng.uniform(0.1, 0.3)
    return [w for w, k in zip(words, kept, strict=True) if k] or words[:1]


def span_drop(words: list[str], rng: np.random.Generator) -> list[str]:
    """Leave out one stretch of up to a quarter of the words."""
    size = int(len(words) * rng.uniform(0.0, 0.25))
    start = int(rng.integers(len(words) - size + 1)) if words else 0
    return words[:start] + words[start + size :]


IMAGE_OPS: dict[str, Callable[["Image.Image", np.random.Generator], "Image.Image"]] = {
    "rotate": rotate,
    "crop": crop,
    "scale": scale,
    "flip": flip,
    "colour": colour,
}
AUDIO_OPS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "denoise": denoise,
    "speed": speed,
    "pitch": pitch,
    "noise": noise,
    "time_mask": time_mask,
    "frequency_mask": frequency_mask,
}
TEXT_OPS: dict[str, Callable[[list[str], np.random.Generator], list[str]]] = {
    "word_drop": word_drop,
    "span_drop": span_drop,
}
OPS: dict[Modality, tuple[str, ...]] = {"text": tuple(TEXT_OPS), "image": tuple(IMAGE_OPS), "audio": tuple(AUDIO_OPS)}


def augmented(modality: Modality, payload: bytes, ops: Sequence[str], content: str, epoch: int) -> bytes:
    """A view of a payload, as a file of the same modality (PNG, float WAV, UTF-8).

    Args:
        modality: text, image or audio.
        payload: the content.
        ops: names from ``OPS``, applied in this order.
        content: sha256 of the content.
        epoch: which view of it.

    Raises:
        DecodeError: the payload cannot be decoded.
    """
    if modality == "text":
        words = payload.decode("utf-8").split()
        for op in ops:
            words = TEXT_OPS[op](words, generator(content, op, epoch))
        return " ".join(words).encode()
    if modality == "image":
        image = decode_image(payload)
        for op in ops:
            image = IMAGE_OPS[op](image, generator(content, op, epoch))
        return _png(image)
    wave, rate, _, _ = decode_audio(payload)
    for op in ops:
        wave = np.asarray(AUDIO_OPS[op](wave, rate, generator(content, op, epoch)), np.float32)
    return _wav(wave, rate)


def _png(image: "Image.Image") -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _wav(wave: np.ndarray, rate: int) -> bytes:
    from scipy.io import wavfile

    out = io.BytesIO()
    wavfile.write(out, rate, wave)  # libsndfile would write the time of day into a PEAK chunk
    return out.getvalue()

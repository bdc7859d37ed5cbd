"""Pictures, sounds, videos and texts that tests make, and encoders tuned on them."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from encoders.base import Encoder
from encoders.batching import encode_all
from encoders.carried.weights import WeightsError, weights_dir
from encoders.catalogue import load
from encoders.device import choose_device
from encoders.modalities import Modality
from encoders.settings import ModelChoice
from encoders.tuning import tune

LONG = ("long " * 400).encode()


def video(seconds: float = 2.0, fps: int = 10, size: tuple[int, int] = (64, 48), hz: float | None = 440.0) -> bytes:
    """An MP4 whose red grows with time, with a tone unless ``hz`` is None."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height = size
        track = container.add_stream("aac", rate=16_000, layout="mono") if hz else None
        n = int(seconds * fps)
        for i in range(n):
            picture = Image.new("RGB", size, (int(255 * i / max(1, n - 1)), 40, 120))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
        if track is not None:
            wave = np.sin(2 * np.pi * (hz or 0) * np.arange(int(16_000 * seconds)) / 16_000).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux([*track.encode(frame), *track.encode(None)])
    return out.getvalue()


VIDEOS = [video(s, size=z, hz=h) for s, z, h in ((0.3, (64, 48), None), (1.0, (32, 80), 220.0), (3.0, (64, 48), 880.0))]


def check_contract(encoder: Encoder, payloads: list[bytes]) -> np.ndarray:
    """Unit float32 rows in order, the same bits alone, shuffled and among others."""
    prepared = [encoder.prepare(p) for p in payloads]
    together = encode_all(encoder, prepared)
    assert together.dtype == np.float32
    assert together.shape == (len(payloads), encoder.spec.dim)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.encode([p]) for p in prepared])
    assert np.array_equal(together, alone), "alone"
    order = np.random.default_rng(0).permutation(len(payloads))
    assert np.array_equal(together[order], encode_all(encoder, [prepared[i] for i in order])), "shuffled"
    assert len({v.tobytes() for v in together}) >= min(3, len(payloads)), "different inputs have different vectors"
    return together


def has_weights(name: str) -> bool:
    try:
        return weights_dir(name).is_dir()
    except WeightsError:
        return False


def need(name: str) -> None:
    if not has_weights(name):
        pytest.skip(f"weights of {name} are not here; run python -m encoders.carried.weights")


def picture(size: tuple[int, int] = (50, 40), colour: str = "red", fmt: str = "PNG", **kwargs: Any) -> bytes:
    out = io.BytesIO()
    image = Image.new("RGB", size, colour)
    image.putpixel((0, 0), (0, 0, 255))
    image.save(out, fmt, **kwargs)
    return out.getvalue()


def sound(seconds: float = 1.0, rate: int = 22_050, hz: float = 440.0, fmt: str = "WAV", channels: int = 1) -> bytes:
    t = np.arange(int(seconds * rate)) / rate
    wave = np.sin(2 * np.pi * hz * t)[:, None].repeat(channels, 1) * 0.5
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=fmt)
    return out.getvalue()


def vectors(encoder: Encoder, payloads: Sequence[bytes]) -> np.ndarray:
    return encode_all(encoder, [encoder.prepare(p) for p in payloads])


def tuned(modality: Modality, choice: ModelChoice, payloads: Sequence[bytes]) -> Encoder:
    """The encoder with the batch size that the stage would find; every larger batch has other bits."""
    name = choose_device("cpu").name
    tuning = tune(lambda d: load(modality, choice, d), name, "float32", payloads)
    return load(modality, choice, tuning.device(name))


TEXTS = [
    t.encode()
    for t in (
        "a cat",
        "a dog ran",
        "abc " * 40,
        "",
        "股市今天下跌",
        "مرحبا",
        "🎧 loud",
        *(f"word {'x' * n}" for n in range(1, 40)),
    )
]


PICTURES = [
    picture(colour=c, size=s) for c in ("red", "green", "blue") for s in ((50, 40), (20, 90), (300, 200), (1, 1))
]


SOUNDS = [sound(s, hz=h, rate=r) for s in (0.05, 1.0, 12.0) for h, r in ((220, 16_000), (880, 44_100))]

"""Augmentation: seeded, and the content stays what it is."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from encoders.augment import AUDIO_OPS, IMAGE_OPS, OPS, TEXT_OPS, augmented, generator
from encoders.decode.image import decode_image
from encoders.decode.sound import decode_audio
from encoders.modalities import Modality
from pipelines.sections import Augment


def picture() -> bytes:
    rng, out = np.random.default_rng(0), io.BytesIO()
    noise = Image.fromarray(rng.integers(0, 255, (8, 10, 3), dtype=np.uint8)).resize((100, 80))
    noise.save(out, "PNG")
    return out.getvalue()


def sound(seconds: float = 1.5, rate: int = 16_000) -> bytes:
    t, out = np.arange(int(seconds * rate)) / rate, io.BytesIO()
    rng = np.random.default_rng(0)
    soundfile.write(out, 0.4 * np.sin(2 * np.pi * 440 * t) + 0.02 * rng.standard_normal(len(t)), rate, format="WAV")
    return out.getvalue()


TEXT = ("the quick brown fox jumps over the lazy dog " * 5).strip().encode()


PAYLOADS: dict[Modality, bytes] = {"text": TEXT, "image": picture(), "audio": sound()}


@pytest.mark.parametrize("modality", sorted(PAYLOADS))
@pytest.mark.parametrize("op_at", range(6))
def test_every_op_is_seeded_by_content_and_epoch(modality: Modality, op_at: int) -> None:
    if op_at >= len(OPS[modality]):
        return
    op, payload = OPS[modality][op_at], PAYLOADS[modality]
    views = [augmented(modality, payload, [op], content, epoch) for content in "ab" for epoch in range(8)]
    again = [augmented(modality, payload, [op], content, epoch) for content in "ab" for epoch in range(8)]
    assert views == again
    assert len(set(views)) >= 2, "flip has two outcomes, the others many"
    if op != "flip":
        assert len(set(views)) > 8


def test_pictures_stay_pictures() -> None:
    image = decode_image(PAYLOADS["image"])
    for name, op in IMAGE_OPS.items():
        out = op(image, generator("x", name, 1))
        assert out.mode == "RGB"
        assert 0.4 * image.width <= out.width <= image.width
    assert IMAGE_OPS["rotate"](image, generator("x", "rotate", 0)).size == image.size
    tiny = Image.new("RGB", (1, 1))
    for name, op in IMAGE_OPS.items():
        assert op(tiny, generator("x", name, 1)).size == (1, 1)


def test_sounds_keep_what_they_should() -> None:
    wave, rate, _, _ = decode_audio(PAYLOADS["audio"])

    def peak_hz(x: np.ndarray) -> float:
        return float(np.fft.rfftfreq(len(x), 1 / rate)[np.abs(np.fft.rfft(x)).argmax()])

    for name in ("denoise", "noise", "time_mask", "frequency_mask", "pitch"):
        out = AUDIO_OPS[name](wave, rate, generator("x", name, 3))
        assert len(out) == len(wave), name
        assert np.isfinite(out).all(), name
    faster = AUDIO_OPS["speed"](wave, rate, generator("x", "speed", 1))
    assert 0.89 < len(faster) / len(wave) < 1.12
    assert peak_hz(faster) == pytest.approx(440 * len(wave) / len(faster), rel=0.01)
    assert peak_hz(AUDIO_OPS["pitch"](wave, rate, generator("x", "pitch", 1))) == pytest.approx(440, rel=0.13)
    noisy = AUDIO_OPS["noise"](wave, rate, generator("x", "noise", 1)) - wave
    assert -32 < 20 * np.log10(np.std(noisy) / np.std(wave)) < -13
    pure = 0.4 * np.sin(2 * np.pi * 440 * np.arange(len(wave)) / rate)
    pure[: len(pure) // 2] = 0  # what never stops is noise to a gate
    noisy = (pure + 0.02 * np.random.default_rng(1).standard_normal(len(pure))).astype(np.float32)
    cleaned = AUDIO_OPS["denoise"](noisy, rate, generator("x", "denoise", 1))
    assert np.std(cleaned - pure) < 0.8 * np.std(noisy - pure), "less noise, same tone"
    for name, op in AUDIO_OPS.items():
        assert np.isfinite(op(wave[:40], rate, generator("x", name, 1))).all(), "a click is a sound, too"


def test_texts_lose_words_only() -> None:
    words = TEXT.decode().split()
    for name, op in TEXT_OPS.items():
        kept = op(words, generator("x", name, 2))
        rest = iter(words)
        assert all(w in rest for w in kept), "order kept"
        assert 0.5 * len(words) < len(kept) < len(words)
        assert op(["one"], generator("x", name, 1)) == ["one"]
        assert op([], generator("x", name, 1)) == []


def test_unknown_ops_are_configuration_errors() -> None:
    with pytest.raises(ValueError, match="unknown augmentation image: 'swirl'"):
        Augment(image=("swirl",))

"""Encoders: real architectures through the real loading path, invariance, hostile payloads."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from scipy.io import wavfile

from encoders.base import Encoder, unit_rows
from encoders.batching import encode_all
from encoders.carried.weights import CARRIERS, WeightsError, weights_dir
from encoders.catalogue import check_model, load
from encoders.decode.image import decode_image
from encoders.decode.sound import decode_audio, probe_audio, windows
from encoders.device import choose_device
from encoders.errors import DecodeError
from encoders.modalities import Modality
from encoders.settings import ModelChoice
from encoders.tuning import tune
from tests.conftest import REAL_DATA, real_data


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


@pytest.fixture(params=["text", "image", "audio", "minilm", "efficientnet-lite0", "musicnn", "mfcc"])
def case(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> tuple[Encoder, list[bytes]]:
    name = request.param
    modality: Modality
    if name in CARRIERS:
        need(name)
    modality = {"minilm": "text", "efficientnet-lite0": "image", "musicnn": "audio", "mfcc": "audio"}.get(name, name)
    model = str(tiny_models[name]) if name in tiny_models else name
    payloads = {"text": TEXTS, "image": PICTURES, "audio": SOUNDS}[modality]
    return tuned(modality, ModelChoice(model), payloads), payloads


def test_vectors_are_unit_and_do_not_depend_on_neighbours(case: tuple[Encoder, list[bytes]]) -> None:
    encoder, payloads = case
    together = vectors(encoder, payloads)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([vectors(encoder, [p]) for p in payloads])
    assert np.array_equal(together, alone), "alone"
    order = np.random.default_rng(1).permutation(len(payloads))
    assert np.array_equal(together[order], vectors(encoder, [payloads[i] for i in order])), "shuffled"


def test_digest_covers_weights_and_preprocessing(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    device = choose_device("cpu")
    first = load("text", ModelChoice(str(tiny_models["text"])), device).spec
    shutil.copytree(tiny_models["text"], tmp_path / "moved")
    assert load("text", ModelChoice(str(tmp_path / "moved")), device).spec.digest() == first.digest(), (
        "a moved folder is the same model"
    )
    weights = tmp_path / "moved" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load("text", ModelChoice(str(tmp_path / "moved")), device).spec.digest() != first.digest()
    (tmp_path / "moved" / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    changed = load("text", ModelChoice(str(tmp_path / "moved")), device).spec
    assert changed.preprocessing["max_tokens"] == 16


def test_minilm_knows_what_is_alike() -> None:
    need("minilm")
    v = vectors(
        load("text", ModelChoice("minilm"), choose_device("cpu")),
        [b"a dog barks", b"a puppy is barking loudly", b"stock markets fell today"],
    )
    assert v[0] @ v[1] > 0.6 > 0.3 > v[0] @ v[2]


def test_lite0_class_scores_are_those_of_the_published_network() -> None:
    """The published classifier on our features must know a zebra crossing of stripes from noise: finite, calibrated."""
    need("efficientnet-lite0")
    import torch

    encoder = load("image", ModelChoice("efficientnet-lite0"), choose_device("cpu"))
    state = torch.load(weights_dir("efficientnet-lite0") / "efficientnet-lite0-57934424.pth", weights_only=True)
    net = encoder.net  # type: ignore[attr-defined]
    for path in sorted((real_data("tuxpaint_stamps") / "images").glob("animals__birds__*flamingo*"))[:1]:
        with torch.inference_mode():
            pixels = torch.from_numpy(encoder.prepare(path.read_bytes())[None])
            features = net(pixels)
            top = (features @ state["_fc.weight"].T + state["_fc.bias"]).softmax(1)[0]
        assert int(top.argmax()) == 130  # ImageNet class 130 is flamingo
        return
    pytest.skip("no flamingo in the stamps")


def test_musicnn_and_mfcc_tell_animals_apart() -> None:
    folder = real_data("animal_sounds")
    import csv

    rows = [
        r for r in csv.DictReader((folder / "labels.csv").open()) if r["is_duplicate"] in ("0", "False", "false", "")
    ]
    rows = [r for r in rows if r["label"] in ("frog", "chicken", "lion")][:60]
    payloads = [
        next(p for p in (folder / r["file"], folder / "clips" / r["file"]) if p.exists()).read_bytes() for r in rows
    ]
    labels = np.array([r["label"] for r in rows])
    for name in ("mfcc", "musicnn"):
        if name in CARRIERS:
            need(name)
        v = vectors(load("audio", ModelChoice(name), choose_device("cpu")), payloads)
        similarity = v @ v.T
        np.fill_diagonal(similarity, -2)
        assert (labels[similarity.argmax(1)] == labels).mean() > 0.7, name


def test_musicnn_agrees_with_the_original() -> None:
    """Expected: mean- and max-pooled features of the first three seconds from musicnn 0.1.0 on TensorFlow 2.15.1."""
    need("musicnn")
    musicnn = load("audio", ModelChoice("musicnn"), choose_device("cpu"))
    with np.load(Path(__file__).parent / "expected" / "musicnn_original.npz") as file:
        expected = {name: file[name] for name in file.files}
    t = np.arange(5 * 16_000) / 16_000
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(t))
    chirp = io.BytesIO()
    wavfile.write(chirp, 16_000, ((0.5 * np.sin(2 * np.pi * (200 * t + 150 * t**2)) + noise) * 32_767).astype(np.int16))
    clips = {"chirp.wav": chirp.getvalue()}
    folder = REAL_DATA / "animal_sounds" / "clips"
    if folder.is_dir():
        clips |= {name: (folder / name).read_bytes() for name in expected if name != "chirp.wav"}
    for name, payload in clips.items():
        first = unit_rows(musicnn.encode([musicnn.prepare(payload)[:1]]))[0]
        reference = unit_rows(expected[name][None])[0]
        assert first @ reference > 0.999999, name
        assert np.abs(first - reference).max() < 2e-4, name  # the original rounds the spectrogram to float16


def test_exif_orientation_and_transparency() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to view
    assert decode_image(picture((50, 40), fmt="JPEG", exif=exif.tobytes())).size == (40, 50)
    out = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(out, "PNG")
    assert decode_image(out.getvalue()).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty_file"),
        (b"no picture", "undecodable_image"),
        (picture()[:60], "undecodable_image"),
        (
            b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + b"\x00" * 6 + b",\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02",
            "image_too_large",
        ),
    ],
)
def test_broken_pictures(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as e:
        decode_image(payload)
    assert e.value.reason == reason


def test_broken_sounds() -> None:
    for payload, reason in (
        (b"", "empty_file"),
        (b"RIFFxxxxWAVE", "undecodable_audio"),
        (b"text", "undecodable_audio"),
        (sound(0), "empty_audio"),
    ):
        with pytest.raises(DecodeError) as e:
            decode_audio(payload)
        assert e.value.reason == reason
    out = io.BytesIO()
    soundfile.write(out, np.array([0.0, np.nan, np.inf], np.float32), 8000, format="WAV", subtype="FLOAT")
    with pytest.raises(DecodeError, match="non_finite_audio"):
        decode_audio(out.getvalue())


@pytest.mark.parametrize("fmt", ["WAV", "FLAC", "OGG", "MP3"])
def test_sounds_of_every_format_become_mono(fmt: str) -> None:
    wave, rate, channels, _ = decode_audio(sound(0.5, 22_050, fmt=fmt, channels=2))
    assert (rate, channels) == (22_050, 2)
    assert wave.ndim == 1
    assert abs(len(wave) / rate - 0.5) < 0.06
    spectrum = np.abs(np.fft.rfft(wave[: rate // 4]))
    assert abs(np.fft.rfftfreq(rate // 4, 1 / rate)[spectrum.argmax()] - 440) < 5


def test_containers_are_read_by_pyav() -> None:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        t = np.arange(44_100, dtype=np.float32) / 44_100
        frame = av.AudioFrame.from_ndarray(
            np.sin(2 * np.pi * 440 * t)[None].astype(np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 44_100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    facts = probe_audio(out.getvalue())
    assert facts["sample_rate_hz"] == 44_100
    assert 0.9 < facts["duration_s"] < 1.1


def test_windows_cover_everything() -> None:
    x = np.arange(10)
    assert windows(x, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert windows(x[:2], 4).tolist() == [[0, 1, 0, 0]]


def test_zero_rows_become_unit() -> None:
    assert np.allclose(np.linalg.norm(unit_rows(np.zeros((2, 3))), axis=1), 1)


def test_hostile_media_are_decoded_or_refused() -> None:
    folder = real_data("hostile")
    for kind, decode in (("images", decode_image), ("audio", decode_audio)):
        files = sorted(p for p in (folder / kind).rglob("*") if p.is_file() and p.stat().st_size < 300_000)[::8]
        assert files
        reasons = []
        for path in files:
            try:
                decode(path.read_bytes())  # type: ignore[operator]
                reasons.append("")
            except DecodeError as e:
                reasons.append(e.reason)
        assert "" in reasons, kind
        assert any(reasons), kind


def test_bad_models_are_named() -> None:
    weights = check_model("text", ModelChoice("minilm"))
    assert not weights or "python -m encoders.carried.weights" in weights[0]
    assert "embeds text, not audio" in check_model("audio", ModelChoice("minilm"))[0]
    assert "not a built-in (mfcc, mfcc-rnn, musicnn)" in check_model("audio", ModelChoice("nobody/nothing"))[0]

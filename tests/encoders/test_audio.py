"""Sounds: the published network on our spectrograms, real clips."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from encoders.audio import _mean_of_share
from encoders.base import unit_rows
from encoders.carried.weights import CARRIERS
from encoders.catalogue import load
from encoders.device import choose_device
from encoders.settings import ModelChoice
from tests import tiny
from tests.payloads import need, vectors
from tests.shop import real_data


@pytest.mark.data
@pytest.mark.slow
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
    agrees(musicnn, expected, {"chirp.wav": chirp.getvalue()})


@pytest.mark.data
def test_musicnn_agrees_with_the_original_on_real_clips() -> None:
    need("musicnn")
    folder = real_data("animal_sounds") / "clips"
    with np.load(Path(__file__).parent / "expected" / "musicnn_original.npz") as file:
        expected = {name: file[name] for name in file.files}
    clips = {name: (folder / name).read_bytes() for name in expected if name != "chirp.wav"}
    agrees(load("audio", ModelChoice("musicnn"), choose_device("cpu")), expected, clips)


def agrees(musicnn: Any, expected: dict[str, np.ndarray], clips: dict[str, bytes]) -> None:
    """First three seconds of each clip against the original's vector."""
    assert clips
    for name, payload in clips.items():
        first = unit_rows(musicnn.encode([musicnn.prepare(payload)[:1]]))[0]
        reference = unit_rows(expected[name][None])[0]
        assert first @ reference > 0.999999, name
        assert np.abs(first - reference).max() < 2e-4, name  # the original rounds the spectrogram to float16


def test_frames_of_padding_do_not_count() -> None:
    import torch

    hidden = torch.arange(1.0, 5.0)[None, :, None].repeat(4, 1, 2)
    found = _mean_of_share(hidden, torch.tensor([0.5, 0.6, 1.0, 0.0]))
    assert found[:, 0].tolist() == [1.5, 2.0, 2.5, 1.0], "part of a frame is a frame, and there is always one"


def test_whisper_is_averaged_over_the_frames_that_hold_sound(made: Any) -> None:
    """A tiny one with a window of two seconds, 100 frames; half a second of sound fills 25 of them."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperModel

    folder = made(tiny.whisper)
    wave = np.sin(2 * np.pi * 440 * np.arange(8_000) / 16_000).astype(np.float32)
    out = io.BytesIO()
    wavfile.write(out, 16_000, wave)
    found = vectors(load("audio", ModelChoice(str(folder)), choose_device("cpu")), [out.getvalue()])
    inputs = WhisperFeatureExtractor.from_pretrained(folder)(wave, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        hidden = WhisperModel.from_pretrained(folder).eval().get_encoder()(inputs.input_features).last_hidden_state
    expected = hidden[0, :25].mean(0).numpy()
    assert hidden.shape[1] == 100
    assert np.allclose(found[0], expected / np.linalg.norm(expected), atol=1e-5)
    whole = hidden[0].mean(0).numpy()
    assert not np.allclose(found[0], whole / np.linalg.norm(whole), atol=1e-3)

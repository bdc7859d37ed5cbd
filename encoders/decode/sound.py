"""Bytes of a sound to a mono waveform: guarded decoding, mixing, resampling, windows.

Every sound of the project is decoded by ``decode_audio``. One reader a format, on purpose: libsndfile for WAV,
FLAC, Ogg and MP3, PyAV (FFmpeg) for MP4/M4A, WebM and the rest; the two disagree on many odd files. Does not belong
here: what becomes of the waveform (``audio``).
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from encoders.errors import DecodeError, cause_of

SEALED = {"protocol_whitelist": "none"}  # FFmpeg: a playlist or an SDP text must open neither files nor sockets
MAX_SECONDS = 180  # a longer sound is described by its first three minutes
MAX_CHANNELS = 32
CANCELLED = 1e-3  # share of its energy that a mix keeps where channels are in opposite phase
SNDFILE_MAGIC = {
    b"RIFF": "wav",
    b"RF64": "wav",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3\x02": "mp3",
    b"ID3\x03": "mp3",
    b"ID3\x04": "mp3",
}


def _sndfile_format(data: bytes) -> str | None:
    if data[:4] in SNDFILE_MAGIC:
        return SNDFILE_MAGIC[data[:4]]
    is_mpeg = len(data) > 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 != 0
    return "mp3" if is_mpeg else None


def _check_header(rate: int, channels: int) -> None:
    if not 1_000 <= rate <= 384_000 or not 1 <= channels <= MAX_CHANNELS:
        raise DecodeError("bad_audio_header", f"{rate} Hz, {channels} channels")


def _sndfile_blocks(data: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """(rate, float32 block (n, channels)) of at most one second each."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(data)) as f:
        _check_header(f.samplerate, f.channels)
        for _ in range(MAX_SECONDS):
            block = f.read(f.samplerate, dtype="float32", always_2d=True)
            if not len(block):
                return
            yield f.samplerate, block


def _av_blocks(data: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """(rate, float32 block (n, channels)) of each decoded frame."""
    import av

    with av.open(io.BytesIO(data), metadata_errors="ignore", options=SEALED) as container:
        if not container.streams.audio:
            raise DecodeError("no_audio_stream", f"container {container.format.name}")
        done = 0.0
        for frame in container.decode(container.streams.audio[0]):
            channels = len(frame.layout.channels)
            _check_header(frame.sample_rate, channels)
            samples = frame.to_ndarray()
            if samples.dtype.kind in "iu":
                info = np.iinfo(samples.dtype)
                samples = (samples.astype(np.float32) - (info.max + info.min + 1) / 2) / (
                    info.max + 1.0 if info.min else 128.0
                )
            block = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
            done += len(block) / frame.sample_rate
            yield frame.sample_rate, block.astype(np.float32)
            if done >= MAX_SECONDS:
                return


def decode_audio(data: bytes) -> tuple[np.ndarray, int, int, str]:
    """Decode to mono.

    Args:
        data: bytes of a WAV, FLAC, Ogg, MP3, MP4/M4A or WebM file.

    Returns:
        Waveform float32 (samples,) in about [-1, 1], rate in Hz, number of channels of the file, format.

    Raises:
        DecodeError: unknown format, damaged data, no sound, or samples that are not finite.
    """
    if not data:
        raise DecodeError("empty_file", "0 bytes")
    fmt = _sndfile_format(data)
    mixed = _Mixed()
    rate = 0
    try:
        for block_rate, block in _sndfile_blocks(data) if fmt else _av_blocks(data):
            if rate and block_rate != rate:
                raise DecodeError("undecodable_audio", f"sample rate changes from {rate} to {block_rate} Hz")
            rate = block_rate
            mixed.add(block)
    except DecodeError:
        raise
    except Exception as e:  # libsndfile and FFmpeg bindings raise many unrelated kinds
        raise DecodeError("undecodable_audio", cause_of(e)) from e
    wave = mixed.wave()[: MAX_SECONDS * rate]
    if not len(wave):
        raise DecodeError("empty_audio", "no samples")
    if not np.isfinite(wave).all():
        raise DecodeError("non_finite_audio", f"{int((~np.isfinite(wave)).sum())} samples are NaN or infinite")
    return wave, rate, mixed.channels, fmt or "container"


class _Mixed:
    """Blocks of several channels as one: their mean; the first alone where they cancel each other out."""

    def __init__(self) -> None:
        self.mean: list[np.ndarray] = []
        self.first: list[np.ndarray] = []
        self.energy, self.mean_energy, self.channels = 0.0, 0.0, 0

    def add(self, block: np.ndarray) -> None:
        """Add samples (n, channels)."""
        mean = block.mean(1)
        self.channels = block.shape[1]
        self.mean.append(mean)
        if self.channels > 1:
            self.first.append(block[:, 0].copy())
            self.energy += float((block.astype(np.float64) ** 2).mean(1).sum())
            self.mean_energy += float((mean.astype(np.float64) ** 2).sum())

    def wave(self) -> np.ndarray:
        """The sound, float32 (samples,)."""
        cancelled = self.mean_energy < CANCELLED * self.energy
        parts = self.first if cancelled else self.mean
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def probe_audio(data: bytes) -> dict[str, Any]:
    """Format, rate (Hz), channels and duration (s, at most ``MAX_SECONDS``) of a sound that decodes.

    Raises:
        DecodeError: it does not.
    """
    wave, rate, channels, fmt = decode_audio(data)
    return {
        "format": fmt,
        "sample_rate_hz": rate,
        "channels": channels,
        "duration_s": round(len(wave) / rate, 3),
    }


def resample(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Waveform at ``target`` Hz (soxr, high quality), float32."""
    import soxr

    return wave if rate == target else soxr.resample(wave, rate, target).astype(np.float32)


def windows(x: np.ndarray, length: int) -> np.ndarray:
    """Cut axis 0 into windows of ``length``: the last one ends at the end, a short input is zero-padded.

    Returns:
        Array (n_windows, length, ...).
    """
    if len(x) <= length:
        return np.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1))[None]
    starts = [*range(0, len(x) - length + 1, length)]
    if starts[-1] + length < len(x):
        starts.append(len(x) - length)
    return np.stack([x[s : s + length] for s in starts])

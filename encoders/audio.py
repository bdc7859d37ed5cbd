"""Sound to vectors: guarded decoding, mono at the encoder's rate, windows, and musicnn, MFCC or a hub model.

Every sound of the project is decoded by ``decode_audio``. One reader a format, on purpose: libsndfile for WAV,
FLAC, Ogg and MP3, PyAV (FFmpeg) for MP4/M4A, WebM and the rest; the two disagree on many odd files.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from encoders.base import (
    DecodeError,
    Device,
    EncoderError,
    EncoderSpec,
    cause_of,
    model_files,
    quiet_transformers,
    unit_rows,
)
from encoders.checkpoint import read_tensor_bundle
from encoders.networks import build_musicnn

MAX_SECONDS = 180  # a longer sound is described by its first three minutes
MAX_CHANNELS = 32
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


def _sndfile_blocks(data: bytes) -> Iterator[tuple[int, int, np.ndarray]]:
    """(rate, channels, mono float32 block) of at most one second each."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(data)) as f:
        _check_header(f.samplerate, f.channels)
        for _ in range(MAX_SECONDS):
            block = f.read(f.samplerate, dtype="float32", always_2d=True)
            if not len(block):
                return
            yield f.samplerate, f.channels, block.mean(1)


def _av_blocks(data: bytes) -> Iterator[tuple[int, int, np.ndarray]]:
    """(rate, channels, mono float32 block) of each decoded frame."""
    import av

    with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
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
            mono = samples.reshape(-1, channels).mean(1) if not frame.format.is_planar else samples.mean(0)
            done += len(mono) / frame.sample_rate
            yield frame.sample_rate, channels, mono.astype(np.float32)
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
    blocks: list[np.ndarray] = []
    rate = channels = 0
    try:
        for block_rate, block_channels, block in _sndfile_blocks(data) if fmt else _av_blocks(data):
            if blocks and block_rate != rate:
                raise DecodeError("undecodable_audio", f"sample rate changes from {rate} to {block_rate} Hz")
            rate, channels = block_rate, block_channels
            blocks.append(block)
    except DecodeError:
        raise
    except Exception as e:  # libsndfile and FFmpeg bindings raise many unrelated kinds
        raise DecodeError("undecodable_audio", cause_of(e)) from e
    wave = np.concatenate(blocks)[: MAX_SECONDS * rate] if blocks else np.zeros(0, np.float32)
    if not len(wave):
        raise DecodeError("empty_audio", "no samples")
    if not np.isfinite(wave).all():
        raise DecodeError("non_finite_audio", f"{int((~np.isfinite(wave)).sum())} samples are NaN or infinite")
    return wave, rate, channels, fmt or "container"


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


class Musicnn:
    """musicnn, a CNN on log-mel spectrograms (https://arxiv.org/abs/1909.06654), MSD weights, 1506-d.

    Patches of 187 frames (3 s); the mean-pooled half is averaged, the max-pooled half maximised over patches.
    """

    RATE, HOP, FFT, MELS, FRAMES = 16_000, 256, 512, 96, 187

    def __init__(self, device: Device):
        files = model_files("musicnn")
        variables = read_tensor_bundle(files.folder / ".index", files.folder / ".data-00000-of-00001")
        self.net = build_musicnn(variables).eval().requires_grad_(False).to(device.name)
        self.device = device
        self.spec = EncoderSpec(
            modality="audio",
            model="musicnn",
            revision=files.revision,
            files=files.sha256,
            preprocessing={"rate_hz": self.RATE, "frames": self.FRAMES, "max_s": MAX_SECONDS, "version": 1},
            pooling="mean+max",
            dtype="float32",
            dim=1506,
        )

    def prepare(self, payload: bytes) -> np.ndarray:
        """Log-mel patches (n, 187, 96).

        Raises:
            DecodeError: the file cannot be decoded.
        """
        import librosa

        wave, rate, _, _ = decode_audio(payload)
        wave = resample(wave, rate, self.RATE)
        mel = librosa.feature.melspectrogram(
            y=wave, sr=self.RATE, hop_length=self.HOP, n_fft=self.FFT, n_mels=self.MELS
        ).T
        return windows(np.log10(10_000.0 * mel + 1.0).astype(np.float32), self.FRAMES)

    def bucket(self, prepared: np.ndarray) -> int:
        """Sounds are encoded one by one; the number of patches is free."""
        return 0

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (n, 1506)."""
        import torch

        out = []
        for patches in prepared:
            with torch.inference_mode():
                # one patch a pass: the result cannot depend on how many others there are
                parts = [self.net(torch.from_numpy(p[None]).to(self.device.name)) for p in patches]
                mean = torch.stack([p[0][0] for p in parts]).mean(0)
                peak = torch.stack([p[1][0] for p in parts]).amax(0)
            out.append(torch.cat([mean, peak]).cpu().numpy())
        return unit_rows(np.stack(out))


class MfccStatistics:
    """Mean and standard deviation of 20 liftered MFCC and their deltas over time, 79-d (loudness left out)."""

    RATE, COEFFICIENTS, LIFTER = 22_050, 20, 22

    def __init__(self, device: Device):
        self.device = device
        self.spec = EncoderSpec(
            modality="audio",
            model="mfcc",
            revision="1",
            files={},
            preprocessing={
                "rate_hz": self.RATE,
                "n_mfcc": self.COEFFICIENTS,
                "lifter": self.LIFTER,
                "max_s": MAX_SECONDS,
                "version": 1,
            },
            pooling="mean+std",
            dtype="float32",
            dim=4 * self.COEFFICIENTS - 1,
        )

    def prepare(self, payload: bytes) -> np.ndarray:
        """MFCC statistics (79,).

        Raises:
            DecodeError: the file cannot be decoded.
        """
        import librosa

        wave, rate, _, _ = decode_audio(payload)
        wave = resample(wave, rate, self.RATE)
        mfcc = librosa.feature.mfcc(y=wave, sr=self.RATE, n_mfcc=self.COEFFICIENTS, lifter=self.LIFTER)
        delta = librosa.feature.delta(mfcc, mode="nearest")
        return np.concatenate([mfcc.mean(1)[1:], mfcc.std(1), delta.mean(1), delta.std(1)])

    def bucket(self, prepared: np.ndarray) -> int:
        """All statistics share one shape."""
        return 0

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (n, 79)."""
        return unit_rows(np.stack(prepared))


class HubAudioEncoder:
    """A Hugging Face audio model on windows of ten seconds; its own feature extractor prepares them.

    Args:
        model: Hugging Face id or local folder.
        device: where it runs.
        revision: hub commit.
    """

    SECONDS = 10

    def __init__(self, model: str, device: Device, revision: str | None = None):
        from transformers import AutoFeatureExtractor, AutoModel

        quiet_transformers()
        files = model_files(model, revision)
        try:
            self.extractor: Any = AutoFeatureExtractor.from_pretrained(files.folder)
            net: Any = AutoModel.from_pretrained(files.folder, dtype=device.torch_dtype())
        except (OSError, ValueError, KeyError, ImportError) as e:
            raise EncoderError(f"cannot load audio encoder '{model}' from {files.folder}: {e}") from e
        net = getattr(net, "encoder", net) if net.config.is_encoder_decoder else net
        self.model = net.eval().requires_grad_(False).to(device.name)
        self.device = device
        self.rate = int(self.extractor.sampling_rate)
        self.spec = EncoderSpec(
            modality="audio",
            model=model,
            revision=files.revision,
            files=files.sha256,
            preprocessing={
                "rate_hz": self.rate,
                "window_s": self.SECONDS,
                "max_s": MAX_SECONDS,
                "version": 1,
            },
            pooling="mean",
            dtype=device.dtype,
            dim=int(net.config.hidden_size),
        )

    def prepare(self, payload: bytes) -> np.ndarray:
        """Model inputs (n_windows, ...) of one sound.

        Raises:
            DecodeError: the file cannot be decoded.
        """
        wave, rate, _, _ = decode_audio(payload)
        parts = windows(resample(wave, rate, self.rate), self.SECONDS * self.rate)
        inputs = self.extractor(list(parts), sampling_rate=self.rate, return_tensors="np")
        values: np.ndarray = inputs[self.extractor.model_input_names[0]]
        return values.astype(np.float32)

    def bucket(self, prepared: np.ndarray) -> int:
        """Sounds are encoded one by one; the number of windows is free."""
        return 0

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (n, dim): mean over time, then over windows."""
        import torch

        out = []
        for parts in prepared:
            with torch.inference_mode():
                x = [torch.from_numpy(p[None]).to(self.device.name, self.device.torch_dtype()) for p in parts]
                hidden = [self.model(p).last_hidden_state.float().mean(1)[0] for p in x]
            out.append(torch.stack(hidden).mean(0).cpu().numpy())
        return unit_rows(np.stack(out))


def load_audio(model: str, device: Device, revision: str | None = None) -> Musicnn | MfccStatistics | HubAudioEncoder:
    """Load an audio encoder by built-in name, Hugging Face id or folder."""
    if model == "musicnn":
        return Musicnn(device)
    return MfccStatistics(device) if model == "mfcc" else HubAudioEncoder(model, device, revision)

"""Sound to vectors: windows of a waveform through musicnn, MFCC or a hub model, pooled over windows.

Clips of any length: cut into windows, each window encoded for itself, then pooled. Does not belong here: decoding
(``decode.sound``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from encoders.base import EncoderSpec, unit_rows
from encoders.batching import Batches, FlatEncoder, row_stable, stacked_on, to_device
from encoders.carried.checkpoint import read_tensor_bundle
from encoders.carried.networks import build_musicnn
from encoders.decode.sound import MAX_SECONDS, decode_audio, resample, windows
from encoders.device import Device
from encoders.errors import EncoderError
from encoders.files import load_pretrained, model_files
from encoders.settings import ModelChoice

if TYPE_CHECKING:
    import torch


class _SoundEncoder:
    """Shared by all audio encoders: any sound file becomes a mono waveform at the encoder's rate."""

    RATE: int

    def prepare(self, payload: bytes) -> np.ndarray:
        """What ``windows_of`` makes of a sound file.

        Raises:
            DecodeError: the file cannot be decoded.
        """
        wave, rate, _, _ = decode_audio(payload)
        return self.windows_of(resample(wave, rate, self.RATE))

    def windows_of(self, wave: np.ndarray) -> np.ndarray:
        """Windows or features of a waveform at ``RATE``."""
        raise NotImplementedError


class _WindowEncoder(_SoundEncoder):
    """Shared by network encoders: the windows of several sounds go through the network together."""

    device: Device
    batches: Batches

    def bucket(self, prepared: np.ndarray) -> int:
        """Sounds whose windows have one length."""
        return int(prepared.shape[1])

    def rows(self, bucket: int) -> int:
        """Sounds of a full batch; each has at least one window."""
        return self.batches.rows()

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (n, dim)."""
        ends = np.cumsum([len(p) for p in prepared])
        rows = self.batches.run(self._forward, [window for windows_of_one in prepared for window in windows_of_one])
        return unit_rows(np.stack([self._over_windows(part) for part in np.split(rows, ends[:-1])]))

    def _forward(self, chunk: Sequence[np.ndarray]) -> "torch.Tensor":
        raise NotImplementedError

    def _over_windows(self, rows: np.ndarray) -> np.ndarray:
        return rows.mean(0)


class Musicnn(_WindowEncoder):
    """musicnn, a CNN on log-mel spectrograms (https://arxiv.org/abs/1909.06654), MSD weights, 1506-d.

    Patches of 187 frames (3 s); the mean-pooled half is averaged, the max-pooled half maximised over patches.
    """

    RATE, HOP, FFT, MELS, FRAMES = 16_000, 256, 512, 96, 187

    def __init__(self, device: Device):
        files = model_files("musicnn")
        variables = read_tensor_bundle(files.folder / ".index", files.folder / ".data-00000-of-00001")
        self.net = build_musicnn(variables).eval().requires_grad_(False).to(device.name, device.torch_dtype())
        self.device, self.batches = device, Batches(device)
        self.spec = EncoderSpec(
            modality="audio",
            model="musicnn",
            revision=files.revision,
            files=files.sha256,
            preprocessing={"rate_hz": self.RATE, "frames": self.FRAMES, "max_s": MAX_SECONDS, "version": 3},
            pooling="mean+max",
            dtype=device.dtype,
            dim=1506,
            fixed_batch=device.fixed_batch,
        )

    def windows_of(self, wave: np.ndarray) -> np.ndarray:
        """Log-mel patches (n, 187, 96)."""
        import librosa

        mel = librosa.feature.melspectrogram(
            y=wave, sr=self.RATE, hop_length=self.HOP, n_fft=self.FFT, n_mels=self.MELS
        ).T
        return windows(np.log10(10_000.0 * mel + 1.0).astype(np.float32), self.FRAMES)

    def _forward(self, chunk: Sequence[np.ndarray]) -> "torch.Tensor":
        import torch

        return torch.cat(self.net(stacked_on(self.device, chunk, self.device.torch_dtype())), 1)

    def _over_windows(self, rows: np.ndarray) -> np.ndarray:
        half = rows.shape[1] // 2
        return np.concatenate([rows[:, :half].mean(0), rows[:, half:].max(0)])


class _Mfcc(FlatEncoder, _SoundEncoder):
    """20 liftered MFCC of 22,050 Hz mono; no network."""

    RATE, COEFFICIENTS, LIFTER = 22_050, 20, 22

    def __init__(self, device: Device):
        self.device = device

    def mfcc(self, wave: np.ndarray) -> np.ndarray:
        """Coefficients (20, frames) of a waveform at ``RATE``."""
        import librosa

        return librosa.feature.mfcc(y=wave, sr=self.RATE, n_mfcc=self.COEFFICIENTS, lifter=self.LIFTER)

    def _spec(self, model: str, pooling: str, dim: int, sequence: tuple[int, int] | None = None) -> EncoderSpec:
        settings = {"rate_hz": self.RATE, "n_mfcc": self.COEFFICIENTS, "lifter": self.LIFTER, "max_s": MAX_SECONDS}
        return EncoderSpec(
            modality="audio",
            model=model,
            revision="1",
            files={},
            preprocessing=settings | {"version": 2},
            pooling=pooling,
            dtype="float32",
            dim=dim,
            sequence=sequence,
        )


class MfccStatistics(_Mfcc):
    """Mean and standard deviation of MFCC and their deltas over time, 79-d (loudness left out)."""

    def __init__(self, device: Device):
        super().__init__(device)
        self.spec = self._spec("mfcc", "mean+std", 4 * self.COEFFICIENTS - 1)

    def windows_of(self, wave: np.ndarray) -> np.ndarray:
        """MFCC statistics (79,)."""
        import librosa

        mfcc = self.mfcc(wave)
        delta = librosa.feature.delta(mfcc, mode="nearest")
        return np.concatenate([mfcc.mean(1)[1:], mfcc.std(1), delta.mean(1), delta.std(1)])


class MfccFrames(_Mfcc):
    """MFCC over time as a sequence (32, 20) for the aligner's RNN; no weights of its own.

    A clip longer than 32 frames is averaged into 32 equal parts; a shorter one ends in zero steps, which are padding.
    """

    STEPS = 32

    def __init__(self, device: Device):
        super().__init__(device)
        shape = (self.STEPS, self.COEFFICIENTS)
        self.spec = self._spec("mfcc-rnn", "rnn in the aligner", shape[0] * shape[1], shape)

    def windows_of(self, wave: np.ndarray) -> np.ndarray:
        """Sequence (32, 20)."""
        frames = self.mfcc(wave).T
        parts = np.array_split(frames, min(self.STEPS, len(frames)))
        out = np.zeros((self.STEPS, self.COEFFICIENTS), np.float32)
        out[: len(parts)] = [p.mean(0) for p in parts]
        return out


class HubAudioEncoder(_WindowEncoder):
    """A Hugging Face audio model on windows; its own feature extractor prepares them.

    Spectrogram models (AST, CLAP, Whisper) see windows of their own length; what they do not pool by themselves is
    averaged over the frames that hold sound. Waveform models (Wav2Vec2, HuBERT) see ten-second windows, and a
    shorter sound as it is, without padding.

    Args:
        choice: model and options.
        device: where it runs.

    Raises:
        EncoderError: the model cannot be loaded.
    """

    SECONDS, SHORTEST = 10.0, 0.1

    def __init__(self, choice: ModelChoice, device: Device):
        files, self.extractor, net = load_pretrained("audio", choice, device, "AutoFeatureExtractor")
        self.joint = hasattr(net, "get_audio_features")
        net = net if self.joint or not net.config.is_encoder_decoder else net.get_encoder()
        self.model = row_stable(net.eval().requires_grad_(False).to(device.name))
        self.device, self.batches = device, Batches(device)
        self.RATE = int(self.extractor.sampling_rate)
        self.layer = choice.layer
        self.is_wave = self.extractor.model_input_names[0] == "input_values" and not hasattr(
            self.extractor, "num_mel_bins"
        )
        self.seconds = self._window_seconds()
        self.spec = EncoderSpec(
            modality="audio",
            model=choice.model,
            revision=files.revision,
            files=files.sha256,
            preprocessing={
                "rate_hz": self.RATE,
                "window_s": self.seconds,
                "max_s": MAX_SECONDS,
                "layer": self.layer,
                "version": 3,
            },
            pooling="joint" if self.joint else "pooler_or_mean",
            dtype=device.dtype,
            dim=self._dim(choice),
            space="shared" if self.joint else "own",
            fixed_batch=device.fixed_batch,
        )

    def _window_seconds(self) -> float:
        """Length of the window that the extractor was made for."""
        frames, hop_s = getattr(self.extractor, "max_length", None), 0.01
        if hasattr(self.extractor, "chunk_length"):  # Whisper, seconds
            return float(self.extractor.chunk_length)
        if hasattr(self.extractor, "max_length_s"):  # CLAP, seconds
            return float(self.extractor.max_length_s)
        return frames * hop_s if frames and not self.is_wave else self.SECONDS  # AST counts frames of 10 ms

    def _dim(self, choice: ModelChoice) -> int:
        """Length of a vector, seen on a second of silence: configurations name it in many ways."""
        silence = self.windows_of(np.zeros(self.RATE, np.float32))
        try:
            return int(self.batches.run(self._forward, list(silence)).shape[1])
        except IndexError as e:
            raise EncoderError(f"encoder '{choice.model}' has no hidden layer {choice.layer}") from e

    def windows_of(self, wave: np.ndarray) -> np.ndarray:
        """Model inputs (n, ...); the last entry of each row of a spectrogram model is the share that holds sound."""
        size = int(self.seconds * self.RATE)
        if self.is_wave and len(wave) < size:
            shortest = int(self.SHORTEST * self.RATE)
            parts = np.pad(wave, (0, max(0, shortest - len(wave))))[None]
        else:
            parts = windows(wave, size)
        rows = [self._extract(part) for part in parts]
        if self.is_wave:
            return np.stack(rows)
        share = min(1.0, len(wave) / size)
        return np.stack([np.append(r.ravel(), np.float32(share)) for r in rows])

    def _extract(self, part: np.ndarray) -> np.ndarray:
        """One window at a time: CLAP's extractor draws random numbers for several."""
        inputs = self.extractor(part, sampling_rate=self.RATE, return_tensors="np")
        values = np.asarray(inputs[self.extractor.model_input_names[0]], np.float32)[0]
        self.shape = values.shape
        return values

    def _forward(self, chunk: Sequence[np.ndarray]) -> "torch.Tensor":
        stacked = np.stack(chunk)
        values = stacked if self.is_wave else np.ascontiguousarray(stacked[:, :-1]).reshape(-1, *self.shape)
        if self.joint:
            return self._joint(values)
        inputs = to_device(values, self.device, self.device.torch_dtype())
        output = self.model(inputs, output_hidden_states=self.layer is not None)
        hidden = output.last_hidden_state if self.layer is None else output.hidden_states[self.layer]
        if self.is_wave:
            return hidden.float().mean(1)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None and self.layer is None:
            return pooled
        return _mean_of_share(hidden.float(), to_device(stacked[:, -1].copy(), self.device))

    def _joint(self, values: np.ndarray) -> "torch.Tensor":
        """CLAP's projected vectors; no window is longer than what it was made for."""
        import torch

        longer = torch.zeros((len(values), 1), dtype=torch.bool, device=self.device.name)
        inputs = to_device(values, self.device, self.device.torch_dtype())
        output = self.model.get_audio_features(input_features=inputs, is_longer=longer)
        return getattr(output, "pooler_output", output)


def _mean_of_share(hidden: "torch.Tensor", share: "torch.Tensor") -> "torch.Tensor":
    """Mean over the first ``share`` (b,) of the frames (b, t, d), at least one."""
    import torch

    frames = hidden.shape[1]
    held = (share * frames).ceil().clamp(1, frames)
    mask = (torch.arange(frames, device=hidden.device)[None] < held[:, None]).to(hidden.dtype)[..., None]
    return (hidden * mask).sum(1) / mask.sum(1)

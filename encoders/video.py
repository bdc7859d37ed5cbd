"""Video to vectors: frames sampled by time through an image encoder with the sound track, or a native video model.

Does not belong here: opening a video (``decode.video``), what a frame or a sound becomes (``image``, ``audio``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.base import Encoder, EncoderSpec, unit_rows
from encoders.batching import Batches, RowEncoder, encode_all, row_stable, stacked_on
from encoders.decode.sound import decode_audio
from encoders.decode.video import decode_video
from encoders.device import Device
from encoders.errors import DecodeError, EncoderError
from encoders.files import load_pretrained
from encoders.settings import ModelChoice

if TYPE_CHECKING:
    import torch

FRAME_TEMPERATURE = 0.1


def attention_pool(frames: np.ndarray) -> np.ndarray:
    """One vector of a video's frame vectors: attention with their mean as the query.

    Frames that look like the whole count more, a stray black frame or a cut hardly at all. No weights to train.

    Args:
        frames: unit rows (t, d).
    """
    query = frames.mean(0)
    logits = frames @ query / max(float(np.linalg.norm(query)), 1e-9) / FRAME_TEMPERATURE
    weights = np.exp(logits - logits.max())
    return (weights / weights.sum()) @ frames


class FrameEncoder:
    """Frames through any image encoder, attention over time, and the sound track through any audio encoder.

    The vector is [frames; sound], each of length 1 before the whole is scaled; a silent video has zeros for the sound,
    which adds nothing to any later projection.

    Args:
        image: encoder of the frames.
        audio: encoder of the sound track, or None.
        frames: how many are sampled.
        device: where both networks run.

    Raises:
        EncoderError: one of the two takes no decoded pictures or sounds.
    """

    def __init__(self, image: Encoder, audio: Encoder | None, frames: int, device: Device):
        self.image: Any = image
        self.audio: Any = audio
        if not hasattr(self.image, "pixels") or (self.audio and not hasattr(self.audio, "windows_of")):
            raise EncoderError("encoders.video: frames and sound tracks need a model, not a file of vectors")
        self.device, self.frames, self.batches = device, frames, Batches(device)
        parts = [p.spec for p in (self.image, self.audio) if p]
        self.spec = EncoderSpec(
            modality="video",
            model="frames",
            revision="1",
            files={f"{p.modality}:{name}": sha for p in parts for name, sha in p.files.items()},
            preprocessing={"frames": frames, "parts": [p.digest() for p in parts], "version": 1},
            pooling="attention",
            dtype=device.dtype,
            dim=sum(p.dim for p in parts),
            fixed_batch=device.fixed_batch,
        )

    def prepare(self, payload: bytes) -> tuple[list[Any], Any]:
        """Prepared frames, and the prepared sound or None.

        Raises:
            DecodeError: no picture decodes.
        """
        pictures, _ = decode_video(payload, self.frames)
        return [self.image.pixels(p) for p in pictures], self._sound(payload)

    def _sound(self, payload: bytes) -> Any:
        """The sound track, None where there is none that decodes: the pictures still count."""
        if self.audio is None:
            return None
        from encoders.decode.sound import resample

        try:
            wave, rate, _, _ = decode_audio(payload)
        except DecodeError:
            return None
        return self.audio.windows_of(resample(wave, rate, self.audio.RATE))

    def bucket(self, prepared: tuple[list[Any], Any]) -> int:
        """Videos are taken as they come; their frames and sounds are batched inside."""
        return 0

    def rows(self, bucket: int) -> int:
        """Videos of a full batch, so that their frames fill the device."""
        return max(1, self.batches.rows() // self.frames)

    def encode(self, prepared: Sequence[tuple[list[Any], Any]]) -> np.ndarray:
        """Vectors (n, dim)."""
        out = np.zeros((len(prepared), self.spec.dim), np.float32)
        frames = encode_all(self.image, [f for pictures, _ in prepared for f in pictures])
        ends = np.cumsum([len(pictures) for pictures, _ in prepared])
        for i, rows in enumerate(np.split(frames, ends[:-1])):
            out[i, : self.image.spec.dim] = unit_rows(attention_pool(rows)[None])[0]
        heard = [i for i, (_, sound) in enumerate(prepared) if sound is not None]
        if heard:
            out[heard, self.image.spec.dim :] = encode_all(self.audio, [prepared[i][1] for i in heard])
        return unit_rows(out)


class HubVideoEncoder(RowEncoder):
    """A native video model such as VideoMAE (https://arxiv.org/abs/2203.12602) on evenly spaced frames.

    Args:
        choice: model and options.
        device: where it runs.

    Raises:
        EncoderError: the model cannot be loaded.
    """

    def __init__(self, choice: ModelChoice, device: Device):
        files, self.processor, net = load_pretrained("video", choice, device, "AutoImageProcessor", backend="pil")
        self.model = row_stable(net.eval().requires_grad_(False).to(device.name))
        self.frames = int(getattr(self.model.config, "num_frames", choice.frames))
        self.device, self.batches = device, Batches(device)
        self.spec = EncoderSpec(
            modality="video",
            model=choice.model,
            revision=files.revision,
            files=files.sha256,
            preprocessing={"processor": type(self.processor).__name__, "frames": self.frames, "version": 1},
            pooling="mean",
            dtype=device.dtype,
            dim=int(self.model.config.hidden_size),
            fixed_batch=device.fixed_batch,
        )

    def prepare(self, payload: bytes) -> np.ndarray:
        """Pixels (frames, 3, h, w) as the model's own processor makes them.

        Raises:
            DecodeError: no picture decodes.
        """
        pictures, _ = decode_video(payload, self.frames)
        values: np.ndarray = self.processor([np.asarray(p) for p in pictures], return_tensors="np")["pixel_values"]
        return np.asarray(values, np.float32).reshape(self.frames, *values.shape[-3:])

    def bucket(self, prepared: np.ndarray) -> int:
        """All videos share one shape."""
        return 0

    def _forward(self, chunk: Sequence[np.ndarray]) -> "torch.Tensor":
        pixels = stacked_on(self.device, chunk, self.device.torch_dtype())
        return self.model(pixel_values=pixels).last_hidden_state.mean(1)

"""Video to vectors: frames sampled by time through an image encoder with the sound track, or a native video model.

Every video of the project is opened here (PyAV, no system FFmpeg). Does not belong here: what a frame or a sound
becomes (``image``, ``sound``, ``audio``).
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.base import (
    DecodeError,
    Device,
    EncoderError,
    EncoderSpec,
    ModelChoice,
    cause_of,
    load,
    load_pretrained,
    unit_rows,
)
from encoders.batching import Batches, RowEncoder, row_stable, to_device
from encoders.image import MAX_PIXELS
from encoders.sound import decode_audio
from encoders.tuning import encode_all

if TYPE_CHECKING:
    import torch
    from PIL import Image

MAX_SECONDS = 600.0  # a longer video is described by its first ten minutes
MAX_FRAMES = 20_000  # decoded frames of one video; the rest is not looked at
FRAME_TEMPERATURE = 0.1


def decode_video(data: bytes, frames: int) -> "tuple[list[Image.Image], float]":
    """Frames in the middle of equal parts of the time, upright and RGB.

    Args:
        data: bytes of an MP4, MOV, WebM, Matroska, AVI or other container that FFmpeg reads.
        frames: how many; a video with fewer gives some of them twice.

    Returns:
        The frames in order of time, and the duration in seconds (at most ``MAX_SECONDS``).

    Raises:
        DecodeError: no container, no video stream, too many pixels, or nothing that decodes.
    """
    import av

    if not data:
        raise DecodeError("empty_file", "0 bytes")
    try:
        with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise DecodeError("no_video_stream", f"container {container.format.name}")
            stream = container.streams.video[0]
            _check_size(stream.codec_context.width, stream.codec_context.height)
            stream.thread_type = "NONE"  # one stream of work a thread: pictures decode the same everywhere
            times = _times(container)
            duration = min(_duration(container, times), MAX_SECONDS)
            return _pick(container, [(i + 0.5) * duration / frames for i in range(frames)]), round(duration, 3)
    except DecodeError:
        raise
    except Exception as e:  # FFmpeg's bindings raise many unrelated kinds
        raise DecodeError("undecodable_video", cause_of(e)) from e


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DecodeError("image_too_large", f"{width} x {height} px a frame, limit {MAX_PIXELS} px")


def _times(container: Any) -> list[float]:
    """Time of each picture in seconds, from the packets alone, sorted; the first one is zero."""
    stream, found = container.streams.video[0], []
    for packet in container.demux(stream):
        if packet.pts is not None:
            found.append(float(packet.pts * packet.time_base))
        if len(found) >= MAX_FRAMES:
            break
    if not found:
        raise DecodeError("empty_video", "no pictures")
    container.seek(0)
    return sorted(t - min(found) for t in found)


def _duration(container: Any, times: list[float]) -> float:
    """Seconds to the end of the last picture; the header is not believed."""
    step = (times[-1] / (len(times) - 1)) if len(times) > 1 else 0.04
    return max(times[-1] + step, 1e-3)


def _pick(container: Any, wanted: list[float]) -> "list[Image.Image]":
    """The last picture at or before each wanted time (the first one if there is none)."""
    found: list[Image.Image] = []
    last, origin = None, None
    for n, frame in enumerate(container.decode(container.streams.video[0])):
        origin = frame.time or 0.0 if origin is None else origin
        while len(found) < len(wanted) and last is not None and (frame.time or 0.0) - origin > wanted[len(found)]:
            found.append(_picture(last))
        if len(found) == len(wanted) or n >= MAX_FRAMES:
            break
        last = frame
    if last is None:
        raise DecodeError("empty_video", "no picture decodes")
    return found + [_picture(last)] * (len(wanted) - len(found))


def _picture(frame: Any) -> "Image.Image":
    _check_size(frame.width, frame.height)
    image: Image.Image = frame.to_image().convert("RGB")
    return image.rotate(frame.rotation, expand=True) if getattr(frame, "rotation", 0) else image


def probe_video(data: bytes) -> dict[str, Any]:
    """Size in pixels and duration in seconds of a video of which pictures decode.

    Raises:
        DecodeError: none does.
    """
    import av

    pictures, duration = decode_video(data, 2)
    with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
        name = container.format.name.split(",")[0]
    return {"format": name, "width_px": pictures[0].width, "height_px": pictures[0].height, "duration_s": duration}


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
        choice: ``image``, ``audio`` and ``frames``.
        device: where both networks run.
    """

    def __init__(self, choice: ModelChoice, device: Device):
        self.image: Any = load("image", ModelChoice(choice.image), device)
        self.audio: Any = load("audio", ModelChoice(choice.audio), device) if choice.audio else None
        if not hasattr(self.image, "pixels") or (self.audio and not hasattr(self.audio, "windows_of")):
            raise EncoderError("encoders.video: frames and sound tracks need a model, not a file of vectors")
        self.device, self.frames, self.batches = device, choice.frames, Batches(device)
        parts = [p.spec for p in (self.image, self.audio) if p]
        self.spec = EncoderSpec(
            modality="video",
            model="frames",
            revision="1",
            files={f"{p.modality}:{name}": sha for p in parts for name, sha in p.files.items()},
            preprocessing={"frames": choice.frames, "parts": [p.digest() for p in parts], "version": 1},
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
        from encoders.sound import resample

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
        pixels = to_device(np.stack(chunk), self.device, self.device.torch_dtype())
        return self.model(pixel_values=pixels).last_hidden_state.mean(1)


def load_video(choice: ModelChoice, device: Device) -> FrameEncoder | HubVideoEncoder:
    """Load a video encoder: ``frames``, or a Hugging Face id or folder."""
    return FrameEncoder(choice, device) if choice.model == "frames" else HubVideoEncoder(choice, device)

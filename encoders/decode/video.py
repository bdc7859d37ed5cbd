"""Video files to frames sampled by time (PyAV, no system FFmpeg). Every video of the project is opened here.

Does not belong here: what a frame or a sound becomes (``image``, ``audio``).
"""

import io
from typing import TYPE_CHECKING, Any

from encoders.decode.image import MAX_PIXELS
from encoders.decode.sound import SEALED
from encoders.errors import DecodeError, cause_of

if TYPE_CHECKING:
    from PIL import Image


MAX_SECONDS = 600.0  # a longer video is described by its first ten minutes
MAX_FRAMES = 20_000  # decoded frames of one video; the rest is not looked at


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
        with av.open(io.BytesIO(data), metadata_errors="ignore", options=SEALED) as container:
            if not container.streams.video:
                raise DecodeError("no_video_stream", f"container {container.format.name}")
            stream = container.streams.video[0]
            _check_size(stream.codec_context.width, stream.codec_context.height)
            stream.thread_type = "NONE"  # one stream of work a thread: pictures decode the same everywhere
            times = _times(container)
            duration = min(_duration(times), MAX_SECONDS)
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
    first = min(found)
    return sorted(t - first for t in found)


def _duration(times: list[float]) -> float:
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
    with av.open(io.BytesIO(data), metadata_errors="ignore", options=SEALED) as container:
        name = container.format.name.split(",")[0]
    return {"format": name, "width_px": pictures[0].width, "height_px": pictures[0].height, "duration_s": duration}

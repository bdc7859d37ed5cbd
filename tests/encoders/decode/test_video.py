"""Videos: frames by time, broken files."""

import numpy as np
import pytest

from encoders.decode.video import decode_video
from encoders.errors import DecodeError
from tests.payloads import sound, video


def test_frames_are_picked_by_time() -> None:
    frames, duration = decode_video(video(2.0, fps=10), 4)
    assert duration == pytest.approx(2.0, abs=0.11)
    red = [np.asarray(f)[..., 0].mean() for f in frames]
    assert np.allclose(np.diff(red), 255 / 4, atol=20), red
    assert len(decode_video(video(0.1, fps=10), 4)[0]) == 4, "fewer frames than asked for"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty_file"),
        (b"no video", "undecodable_video"),
        (sound(), "no_video_stream"),
        (video()[:300], "undecodable_video"),
    ],
    ids=["empty", "text", "sound", "cut"],
)
def test_broken_videos(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as e:
        decode_video(payload, 4)
    assert e.value.reason == reason

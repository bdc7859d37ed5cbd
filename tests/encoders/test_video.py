"""Video: frames by time, parts, attention."""

from typing import Any

import numpy as np
import pytest

from encoders.catalogue import load
from encoders.device import Device
from encoders.settings import ModelChoice
from encoders.video import attention_pool
from tests import tiny
from tests.payloads import VIDEOS, check_contract, need, tuned


@pytest.mark.slow
def test_videos_through_image_and_audio_encoders(made: Any) -> None:
    choice = ModelChoice("frames", image=str(made(tiny.dinov2)), audio="mfcc", frames=3)
    encoder = tuned("video", choice, VIDEOS)
    vectors = check_contract(encoder, VIDEOS)
    assert encoder.spec.dim == 32 + 79
    assert not vectors[0, 32:].any(), "a silent video has no sound part"
    assert np.linalg.norm(vectors[1, 32:]) == pytest.approx(0.5**0.5, abs=1e-4)
    only = load("video", ModelChoice("frames", image=str(made(tiny.dinov2)), audio="", frames=3), Device())
    assert only.spec.dim == 32
    assert only.spec.digest() != encoder.spec.digest()


def test_default_video_encoder() -> None:
    need("efficientnet-lite0")
    need("musicnn")
    encoder = load("video", ModelChoice("frames", frames=2), Device())
    assert encoder.encode([encoder.prepare(VIDEOS[1])]).shape == (1, 1280 + 1506)


def test_attention_prefers_what_is_typical() -> None:
    x = np.eye(4, dtype=np.float32)[[0, 0, 0, 3]]
    pooled = attention_pool(x)
    assert pooled[0] > 0.95, "a stray frame hardly counts"

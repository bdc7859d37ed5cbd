"""Sounds: every format to mono, windows, broken files."""

import io

import numpy as np
import pytest
import soundfile

from encoders.decode.sound import decode_audio, probe_audio, windows
from encoders.errors import DecodeError
from tests.payloads import sound


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


@pytest.mark.parametrize(
    ("codec", "layout", "samples"),
    [
        ("pcm_u8", "u8", np.array([128, 192, 64, 0], np.uint8)),
        ("pcm_s16le", "s16", np.array([0, 2**14, -(2**14), -(2**15)], np.int16)),
        ("pcm_s32le", "s32", np.array([0, 2**30, -(2**30), -(2**31)], np.int32)),
    ],
)
def test_integers_become_shares_of_full_scale(codec: str, layout: str, samples: np.ndarray) -> None:
    """Half of the range is 0.5 and its end -1, whatever the width; eight bits have their zero at 128."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=8_000, layout="stereo")
        both = np.repeat(np.tile(samples, 200), 2)[None]
        frame = av.AudioFrame.from_ndarray(both, format=layout, layout="stereo")
        frame.sample_rate = 8_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    wave, rate, channels, _ = decode_audio(out.getvalue())
    assert (rate, channels, len(wave)) == (8_000, 2, 800)
    assert wave[:4].tolist() == [0, 0.5, -0.5, -1]


def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.stack([left, right], 1), 8000, format="WAV", subtype="FLOAT")
    return out.getvalue()


def test_channels_in_opposite_phase_do_not_cancel_out() -> None:
    tone = np.sin(np.arange(8000) / 5).astype(np.float32)
    assert np.allclose(decode_audio(stereo(tone, -tone))[0], tone, atol=1e-6), "the first channel alone"
    assert np.allclose(decode_audio(stereo(tone, tone * 0.5))[0], tone * 0.75, atol=1e-6), "else their mean"
    assert not decode_audio(stereo(tone * 0, tone * 0))[0].any()


@pytest.mark.parametrize(
    "text",
    [b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nm=audio 9 RTP/AVP 0\r\n", b"ffconcat version 1.0\nfile a.wav\n"],
)
def test_texts_that_name_other_sources_open_nothing(text: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_audio(text)

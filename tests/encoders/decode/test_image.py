"""Pictures: orientation, transparency, broken files."""

import io

import numpy as np
import pytest
from PIL import Image

from encoders.decode.image import decode_image, with_few_colours
from encoders.decode.sound import decode_audio
from encoders.errors import DecodeError
from tests.payloads import picture
from tests.shop import real_data


def test_exif_orientation_and_transparency() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to view
    assert decode_image(picture((50, 40), fmt="JPEG", exif=exif.tobytes())).size == (40, 50)
    out = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(out, "PNG")
    assert decode_image(out.getvalue()).getpixel((1, 1)) == (255, 255, 255)


def ramp(mode: str, low: float, high: float) -> bytes:
    """A TIFF of 16 x 4 pixels that rises from left to right."""
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    row = np.linspace(low, high, 16)
    out = io.BytesIO()
    Image.fromarray(np.tile(row, (4, 1)).astype(kind)).save(out, "TIFF")
    return out.getvalue()


@pytest.mark.parametrize(
    ("mode", "low", "high", "expected"),
    [
        ("I;16", 0, 65_535, [0, 255]),
        ("I;16", 13_107, 52_428, [51, 204]),  # a fifth and four fifths of the range
        ("I", 0, 65_535, [0, 255]),
        ("I", 51, 204, [51, 204]),  # eight bits in 32
        ("I", -1000, 1000, [0, 255]),  # another range is stretched
        ("F", 0.2, 0.8, [51, 204]),
        ("F", 51.0, 204.0, [51, 204]),
        ("F", -5.0, 1e6, [0, 255]),
    ],
)
def test_pictures_of_more_than_eight_bits_keep_what_they_show(
    mode: str, low: float, high: float, expected: list[int]
) -> None:
    pixels = np.asarray(decode_image(ramp(mode, low, high)))
    assert [pixels[0, 0, 0], pixels[0, -1, 2]] == expected
    assert (np.diff(pixels[0, :, 0].astype(int)) > 0).all(), "a ramp, not white and black"


def test_the_first_frame_that_shows_something_is_the_picture() -> None:
    blank, red = Image.new("RGB", (6, 6), "white"), Image.new("RGB", (6, 6), "white")
    red.putpixel((2, 2), (255, 0, 0))
    out = io.BytesIO()
    blank.save(out, "GIF", save_all=True, append_images=[red, blank])
    assert decode_image(out.getvalue()).getpixel((2, 2)) == (255, 0, 0)
    out = io.BytesIO()
    blank.save(out, "GIF", save_all=True, append_images=[blank.copy()])
    assert decode_image(out.getvalue()).getpixel((2, 2)) == (255, 255, 255), "blank where all are"


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"\x00\x00\x00\x18ftypheic" + b"\x00" * 40, "HEIC"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "SVG"),
        (b"\n<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"\x00\x00\x00\x0cjP  \r\n", "JPEG 2000"),
        (b"%PDF-1.7", "PDF"),
        (b"\x00\x00\x00\x18ftypisom" + b"\x00" * 40, "a video"),
    ],
)
def test_a_file_that_is_no_picture_is_named(payload: bytes, what: str) -> None:
    with pytest.raises(DecodeError) as e:
        decode_image(payload)
    assert e.value.reason == "unsupported_image"
    assert what in e.value.detail


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty_file"),
        (b"no picture", "undecodable_image"),
        (picture()[:60], "undecodable_image"),
        (
            b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + b"\x00" * 6 + b",\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02",
            "image_too_large",
        ),
    ],
)
def test_broken_pictures(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as e:
        decode_image(payload)
    assert e.value.reason == reason


@pytest.mark.data
def test_hostile_media_are_decoded_or_refused() -> None:
    folder = real_data("hostile")
    for kind, decode in (("images", decode_image), ("audio", decode_audio)):
        files = sorted(p for p in (folder / kind).rglob("*") if p.is_file() and p.stat().st_size < 300_000)[::8]
        assert files
        reasons = []
        for path in files:
            try:
                decode(path.read_bytes())
                reasons.append("")
            except DecodeError as e:
                reasons.append(e.reason)
        assert "" in reasons, kind
        assert any(reasons), kind


def test_a_drawing_keeps_its_colours_in_fewer_bytes() -> None:
    """Two colours and noise of one step around them: the palette keeps each pixel within a step or two."""
    noise = np.random.default_rng(0).integers(0, 2, (200, 300, 3))
    drawing = np.where(np.arange(300)[None, :, None] < 150, 10, 240) + noise
    out = io.BytesIO()
    Image.fromarray(drawing.astype(np.uint8)).save(out, "PNG")
    png = out.getvalue()
    small = with_few_colours(png, 4)
    assert len(small) < len(png) / 3
    assert np.abs(np.asarray(Image.open(io.BytesIO(small)).convert("RGB"), int) - drawing).max() <= 2

"""Pictures: orientation, transparency, broken files."""

import io

import pytest
from PIL import Image

from encoders.decode.image import decode_image
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

"""Image files to upright RGB pictures, guarded.

Every image of the project is decoded here; nothing else may open one.
"""

import io
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.errors import DecodeError, cause_of

if TYPE_CHECKING:
    from PIL import Image


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # AVIF where Pillow was built with it
MAX_FRAMES = 20  # of an animation, of which the first that shows something is the picture
HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
KNOWN = {
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000; convert it to JPEG",
    b"\xff\x4f\xff\x51": "JPEG 2000; convert it to JPEG",
    b"\x00\x00\x01\x00": "an icon (ICO); convert it to PNG",
    b"8BPS": "a Photoshop file; convert it to PNG",
    b"%PDF": "a PDF, not a picture",
    b"PK\x03\x04": "a zip, not a picture",
    b"\x1aE\xdf\xa3": "a video (Matroska or WebM)",
    b"RIFF": "a RIFF file that is no WEBP",
    b"\x1f\x8b": "gzip, not a picture",
}
MAX_PIXELS = 64_000_000  # width x height; the header is checked before any pixel is decoded


def decode_image(data: bytes) -> "Image.Image":
    """Decode the first frame that is not of one colour, upright and RGB; transparency is laid on white.

    Pictures of 16 and 32 bits and of floats keep what they show: 0 to 65,535 (or 0 to 1) become 0 to 255, other ranges
    are stretched.

    Args:
        data: bytes of a JPEG, PNG, WEBP, GIF, BMP, TIFF or AVIF file.

    Raises:
        DecodeError: unknown format, too many pixels, or damaged data.
    """
    from PIL import Image

    if not data:
        raise DecodeError("empty_file", "0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # EXIF quirks; bombs are refused by MAX_PIXELS below
        try:
            image = Image.open(io.BytesIO(data), formats=_formats())
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DecodeError("image_too_large", f"{width} x {height} px, limit {MAX_PIXELS} px")
            image.load()
            return _first_shown(image)
        except DecodeError:
            raise
        except Image.DecompressionBombError as e:
            raise DecodeError("image_too_large", f"limit {MAX_PIXELS} px: {cause_of(e)}") from e
        except Exception as e:  # Pillow raises 90 kinds beyond OSError on damaged files
            what = what_it_is(data)
            if what:
                raise DecodeError("unsupported_image", f"the file is {what}") from e
            raise DecodeError("undecodable_image", cause_of(e)) from e


@cache
def _formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow can read."""
    from PIL import Image

    Image.init()
    return tuple(f for f in FORMATS if f in Image.OPEN)


def _first_shown(image: "Image.Image") -> "Image.Image":
    """The first frame that is not blank; the very first where all are."""
    first = _upright(image)
    for n in range(1, min(MAX_FRAMES, getattr(image, "n_frames", 1))):
        if not _is_blank(first):
            break
        image.seek(n)
        frame = _upright(image)
        if not _is_blank(frame):
            return frame
    return first


def _upright(image: "Image.Image") -> "Image.Image":
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        return _eight_bits(upright)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return upright.convert("RGB")


def _is_blank(image: "Image.Image") -> bool:
    return all(low == high for low, high in image.getextrema())  # type: ignore[misc]


def _eight_bits(image: "Image.Image") -> "Image.Image":
    """RGB of one channel of integers or floats, which Pillow's own conversion would clip to white and black."""
    from PIL import Image

    values = np.asarray(image, np.float64)
    values = np.where(np.isfinite(values), values, 0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 65_535:
        low, high = 0.0, 65_535.0
    scaled = np.round((values - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")


def what_it_is(data: bytes) -> str:
    """What a file is that is no picture of ours, for the person who has to convert it; empty where that is unknown."""
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        return (
            "HEIC; convert it to JPEG" if brand in HEIC else f"a video or another container ({brand.decode('latin-1')})"
        )
    for start, what in KNOWN.items():
        if data.startswith(start):
            return what
    if head.startswith((b"<!doctype html", b"<html")) or b"<html" in head[:200]:
        return "an HTML page, not a picture"
    if b"<svg" in head:
        return "SVG; convert it to PNG"
    return "an XML or JSON text, not a picture" if head.startswith((b"<?xml", b"{", b"[")) else ""


def probe_image(data: bytes) -> dict[str, Any]:
    """Format and size in pixels of an image that decodes to the end.

    Raises:
        DecodeError: it does not.
    """
    from PIL import Image

    width, height = decode_image(data).size
    fmt = Image.open(io.BytesIO(data), formats=_formats()).format or ""
    return {"format": fmt.lower(), "width_px": width, "height_px": height}


def thumbnail(data: bytes, side: int) -> bytes:
    """JPEG bytes of a picture's centre, ``side`` pixels wide and high.

    Raises:
        DecodeError: as ``decode_image`` does.
    """
    out = io.BytesIO()
    _centre(data, side).save(out, "JPEG", quality=72)
    return out.getvalue()


def with_few_colours(png: bytes, colours: int) -> bytes:
    """The same drawing as a PNG with a palette, a third to a fifth of its bytes; no photograph survives it."""
    from PIL import Image

    out = io.BytesIO()
    palette = Image.open(io.BytesIO(png)).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    palette.save(out, "PNG", optimize=True)
    return out.getvalue()


def pixels(data: bytes, side: int) -> np.ndarray:
    """Pixels (side, side, 3) uint8 of a picture's centre.

    Raises:
        DecodeError: as ``decode_image`` does.
    """
    return np.asarray(_centre(data, side))


def _centre(data: bytes, side: int) -> "Image.Image":
    from PIL import Image, ImageOps

    return ImageOps.fit(decode_image(data), (side, side), Image.Resampling.BICUBIC)

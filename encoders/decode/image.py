"""Image files to upright RGB pictures, guarded.

Every image of the project is decoded here; nothing else may open one.
"""

import io
import warnings
from typing import TYPE_CHECKING, Any

from encoders.errors import DecodeError, cause_of

if TYPE_CHECKING:
    from PIL import Image


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 64_000_000  # width x height; the header is checked before any pixel is decoded


def decode_image(data: bytes) -> "Image.Image":
    """Decode the first frame, upright and RGB; transparency is laid on white.

    Args:
        data: bytes of a JPEG, PNG, WEBP, GIF, BMP or TIFF file.

    Raises:
        DecodeError: unknown format, too many pixels, or damaged data.
    """
    from PIL import Image, ImageOps

    if not data:
        raise DecodeError("empty_file", "0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # EXIF quirks; bombs are refused by MAX_PIXELS below
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DecodeError("image_too_large", f"{width} x {height} px, limit {MAX_PIXELS} px")
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            return upright.convert("RGB")
        except DecodeError:
            raise
        except Image.DecompressionBombError as e:
            raise DecodeError("image_too_large", f"limit {MAX_PIXELS} px: {cause_of(e)}") from e
        except Exception as e:  # Pillow raises 90 kinds beyond OSError on damaged files
            raise DecodeError("undecodable_image", cause_of(e)) from e


def probe_image(data: bytes) -> dict[str, Any]:
    """Format and size in pixels of an image that decodes to the end.

    Raises:
        DecodeError: it does not.
    """
    from PIL import Image

    width, height = decode_image(data).size
    fmt = Image.open(io.BytesIO(data), formats=FORMATS).format or ""
    return {"format": fmt.lower(), "width_px": width, "height_px": height}

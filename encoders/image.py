"""Images to vectors: guarded decoding, EXIF orientation, RGB, and a CNN or a Hugging Face vision tower.

Every image of the project is decoded by ``decode_image``; nothing else may open one.
"""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.base import (
    DecodeError,
    Device,
    EncoderError,
    EncoderSpec,
    cause_of,
    model_files,
    quiet_transformers,
    unit_rows,
)
from encoders.networks import build_lite0, lite0_module_name

if TYPE_CHECKING:
    import torch
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


class EfficientNetLite0:
    """EfficientNet-Lite0, 1280-d pooled features (https://arxiv.org/abs/1905.11946, "lite" variant).

    Input: 224 px centre crop with 32 px of padding context, (uint8 - 127) / 128.
    """

    SIZE, CONTEXT = 224, 32

    def __init__(self, device: Device):
        import torch

        files = model_files("efficientnet-lite0")
        state = torch.load(files.folder / "efficientnet-lite0-57934424.pth", weights_only=True, map_location="cpu")
        self.net = build_lite0()
        self.net.load_state_dict({lite0_module_name(k): v for k, v in state.items() if not k.startswith("_fc")})
        self.net.eval().requires_grad_(False).to(device.name, device.torch_dtype())
        self.device = device
        self.spec = EncoderSpec(
            modality="image",
            model="efficientnet-lite0",
            revision=files.revision,
            files=files.sha256,
            preprocessing={"size": self.SIZE, "context": self.CONTEXT, "resample": "bicubic", "version": 1},
            pooling="mean",
            dtype=device.dtype,
            dim=1280,
        )

    def prepare(self, payload: bytes) -> np.ndarray:
        """Pixels (3, 224, 224) float32 of an image file.

        Raises:
            DecodeError: the file cannot be decoded.
        """
        from PIL import Image

        image = decode_image(payload)
        side = min(image.size) * self.SIZE / (self.SIZE + self.CONTEXT)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        square = image.resize(
            (self.SIZE, self.SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
        )
        return ((np.asarray(square, np.float32) - 127.0) / 128.0).transpose(2, 0, 1)

    def bucket(self, prepared: np.ndarray) -> int:
        """All images share one shape."""
        return 0

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (n, 1280)."""
        return _forward(self.net, prepared, self.device)


def _forward(net: Any, prepared: Sequence[np.ndarray], device: Device) -> np.ndarray:
    """Fixed-shape batches on the accelerator; one image at a time on a CPU, where that is fastest."""
    import torch

    size = 1 if device.name == "cpu" else device.batch_size
    out = []
    for start in range(0, len(prepared), size):
        chunk = prepared[start : start + size]
        batch = np.zeros((size, *chunk[0].shape), np.float32)
        batch[: len(chunk)] = chunk
        with torch.inference_mode():
            pixels = torch.from_numpy(batch).to(device.name, device.torch_dtype())
            out.append(net(pixels).float()[: len(chunk)].cpu().numpy())
    return unit_rows(np.concatenate(out))


class HubImageEncoder:
    """A Hugging Face vision model; preprocessing comes from its own processor, pooling from its own head.

    Args:
        model: Hugging Face id or local folder.
        device: where it runs.
        revision: hub commit.
    """

    def __init__(self, model: str, device: Device, revision: str | None = None):
        from transformers import AutoImageProcessor, AutoModel

        quiet_transformers()
        files = model_files(model, revision)
        try:
            self.processor: Any = AutoImageProcessor.from_pretrained(files.folder, use_fast=False)
            net: Any = AutoModel.from_pretrained(files.folder, dtype=device.torch_dtype())
        except (OSError, ValueError, KeyError, ImportError) as e:
            raise EncoderError(f"cannot load image encoder '{model}' from {files.folder}: {e}") from e
        self.model = getattr(net, "vision_model", net).eval().requires_grad_(False).to(device.name)
        config = getattr(net.config, "vision_config", net.config)
        dim = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]
        self.device = device
        self.spec = EncoderSpec(
            modality="image",
            model=model,
            revision=files.revision,
            files=files.sha256,
            preprocessing={"processor": type(self.processor).__name__, "version": 1},
            pooling="pooler_or_mean",
            dtype=device.dtype,
            dim=int(dim),
        )

    def prepare(self, payload: bytes) -> np.ndarray:
        """Pixels as the model's own processor makes them.

        Raises:
            DecodeError: the file cannot be decoded.
        """
        pixels: np.ndarray = self.processor(images=decode_image(payload), return_tensors="np")["pixel_values"][0]
        return pixels

    def bucket(self, prepared: np.ndarray) -> int:
        """Images of one height and width."""
        return int(prepared.shape[-2]) * 100_000 + int(prepared.shape[-1])

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (n, dim)."""
        return _forward(self._pooled, prepared, self.device)

    def _pooled(self, pixels: "torch.Tensor") -> "torch.Tensor":
        output = self.model(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            pooled = (
                output.last_hidden_state.flatten(2).mean(-1)
                if output.last_hidden_state.ndim == 4
                else output.last_hidden_state.mean(1)
            )
        return pooled.flatten(1)


def load_image(model: str, device: Device, revision: str | None = None) -> EfficientNetLite0 | HubImageEncoder:
    """Load an image encoder by built-in name, Hugging Face id or folder."""
    return EfficientNetLite0(device) if model == "efficientnet-lite0" else HubImageEncoder(model, device, revision)

"""Images to vectors: guarded decoding, EXIF orientation, RGB, and a CNN or a Hugging Face vision tower.

Every image of the project is decoded by ``decode_image``; nothing else may open one.
"""

import io
import re
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
        self.net = _build_lite0()
        self.net.load_state_dict({_module_name(k): v for k, v in state.items() if not k.startswith("_fc")})
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


# (repeats, kernel, stride, expansion, out channels) of each stage; Lite keeps the stem at 32 and has no squeeze-excite.
_LITE0_STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


def _module_name(key: str) -> str:
    """Name in the published checkpoint -> name in our module tree."""
    key = re.sub(r"^_blocks\.(\d+)\.", r"blocks.\1.", key)
    for old, new in {
        "_conv_stem.": "stem.",
        "_bn0.": "stem_bn.",
        "_conv_head.": "head.",
        "_bn1.": "head_bn.",
    }.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    parts = {"_expand_conv": "expand", "_bn0": "expand_bn", "_depthwise_conv": "depthwise"}
    parts |= {"_bn1": "depthwise_bn", "_project_conv": "project", "_bn2": "project_bn"}
    head, block, name, rest = key.split(".", 3)
    return f"{head}.{block}.{parts[name]}.{rest}"


def _build_lite0() -> "torch.nn.Module":  # noqa: C901 - one small network, told top to bottom
    import torch
    from torch import nn
    from torch.nn import functional as F

    class SameConv(nn.Conv2d):
        """Convolution with TensorFlow "SAME" padding (more on the right and bottom)."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pads = []
            for axis in (3, 2):
                size, k, s = x.shape[axis], self.kernel_size[axis - 2], self.stride[axis - 2]
                total = max((-(-size // s) - 1) * s + k - size, 0)
                pads += [total // 2, total - total // 2]
            return super().forward(F.pad(x, pads))

    def norm(channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=1e-3)

    class Block(nn.Module):
        def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int):
            super().__init__()
            mid = cin * expansion
            self.expand = SameConv(cin, mid, 1, bias=False) if expansion > 1 else None
            self.expand_bn = norm(mid) if expansion > 1 else None
            self.depthwise = SameConv(mid, mid, kernel, stride, groups=mid, bias=False)
            self.depthwise_bn = norm(mid)
            self.project = SameConv(mid, cout, 1, bias=False)
            self.project_bn = norm(cout)
            self.skip = stride == 1 and cin == cout

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x
            if self.expand is not None and self.expand_bn is not None:
                y = F.relu6(self.expand_bn(self.expand(y)))
            y = F.relu6(self.depthwise_bn(self.depthwise(y)))
            y = self.project_bn(self.project(y))
            return x + y if self.skip else y

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.stem_bn = SameConv(3, 32, 3, 2, bias=False), norm(32)
            blocks, cin = [], 32
            for repeats, kernel, stride, expansion, cout in _LITE0_STAGES:
                for i in range(repeats):
                    blocks.append(Block(cin, cout, kernel, stride if i == 0 else 1, expansion))
                    cin = cout
            self.blocks = nn.ModuleList(blocks)
            self.head, self.head_bn = SameConv(320, 1280, 1, bias=False), norm(1280)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Pixels (b, 3, 224, 224) -> features (b, 1280)."""
            x = F.relu6(self.stem_bn(self.stem(x)))
            for block in self.blocks:
                x = block(x)
            return F.relu6(self.head_bn(self.head(x))).mean((2, 3))

    return Net()


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

"""Images to vectors: guarded decoding, EXIF orientation, RGB, and a CNN or a Hugging Face vision tower.

Every image of the project is decoded by ``decode_image``; nothing else may open one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.base import EncoderSpec
from encoders.batching import Batches, FlatEncoder, RowEncoder, row_stable, stacked_on
from encoders.carried.networks import build_lite0, for_inference, lite0_module_name
from encoders.decode.image import decode_image
from encoders.device import Device
from encoders.errors import EncoderError
from encoders.files import load_pretrained, model_files
from encoders.settings import ModelChoice

if TYPE_CHECKING:
    import torch
    from PIL import Image


class _PixelEncoder(RowEncoder):
    """Shared by all image networks: pixels of one shape, channels last."""

    device: Device

    def bucket(self, prepared: np.ndarray) -> int:
        """Images of one height and width."""
        return int(prepared.shape[-2]) * 100_000 + int(prepared.shape[-1])

    def _forward(self, chunk: Sequence[np.ndarray]) -> "torch.Tensor":
        import torch

        pixels = stacked_on(self.device, chunk, self.device.torch_dtype())
        return self._features(pixels.contiguous(memory_format=torch.channels_last))

    def _features(self, pixels: "torch.Tensor") -> "torch.Tensor":
        raise NotImplementedError


class EfficientNetLite0(_PixelEncoder):
    """EfficientNet-Lite0, 1280-d pooled features (https://arxiv.org/abs/1905.11946, "lite" variant).

    Input: 224 px centre crop with 32 px of padding context, (uint8 - 127) / 128.
    """

    SIZE, CONTEXT = 224, 32

    def __init__(self, device: Device):
        import torch

        files = model_files("efficientnet-lite0")
        state = torch.load(files.folder / "efficientnet-lite0-57934424.pth", weights_only=True, map_location="cpu")
        net: Any = build_lite0()
        net.load_state_dict({lite0_module_name(k): v for k, v in state.items() if not k.startswith("_fc")})
        net = for_inference(net.eval()).requires_grad_(False).to(device.name, device.torch_dtype())
        self.net = net.to(memory_format=torch.channels_last)
        self.device, self.batches = device, Batches(device)
        self.spec = EncoderSpec(
            modality="image",
            model="efficientnet-lite0",
            revision=files.revision,
            files=files.sha256,
            preprocessing={"size": self.SIZE, "context": self.CONTEXT, "resample": "bicubic", "version": 3},
            pooling="mean",
            dtype=device.dtype,
            dim=1280,
            fixed_batch=device.fixed_batch,
        )

    def prepare(self, payload: bytes) -> np.ndarray:
        """Pixels (224, 224, 3) uint8 of an image file.

        Raises:
            DecodeError: the file cannot be decoded.
        """
        return self.pixels(decode_image(payload))

    def pixels(self, image: "Image.Image") -> np.ndarray:
        """Pixels (224, 224, 3) uint8 of a decoded image."""
        from PIL import Image

        side = min(image.size) * self.SIZE / (self.SIZE + self.CONTEXT)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        square = image.resize(
            (self.SIZE, self.SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
        )
        return np.asarray(square)

    def _forward(self, chunk: Sequence[np.ndarray]) -> "torch.Tensor":
        pixels = stacked_on(self.device, chunk).permute(0, 3, 1, 2)  # bytes are a quarter of what floats take to copy
        return self._features(((pixels.float() - 127.0) / 128.0).to(self.device.torch_dtype()))

    def _features(self, pixels: "torch.Tensor") -> "torch.Tensor":
        return self.net(pixels)


class HubImageEncoder(_PixelEncoder):
    """A Hugging Face vision model; preprocessing comes from its own processor, pooling from its own head.

    Joint models (CLIP, SigLIP) give the projected vector in the space that they share with text.

    Args:
        choice: model and options.
        device: where it runs.

    Raises:
        EncoderError: the model cannot be loaded, or an option does not fit it.
    """

    def __init__(self, choice: ModelChoice, device: Device):
        import torch

        files, self.processor, net = load_pretrained("image", choice, device, "AutoImageProcessor", backend="pil")
        self.joint = hasattr(net, "get_image_features")
        self.model = row_stable(net.eval().requires_grad_(False).to(device.name)).to(memory_format=torch.channels_last)
        self.device, self.batches = device, Batches(device)
        self.pooling, self.layer = choice.pooling or ("joint" if self.joint else "pooler"), choice.layer
        if self.pooling not in ("joint" if self.joint else "pooler", "mean", "cls"):
            raise EncoderError(f"encoder '{choice.model}': pooling '{choice.pooling}' is neither mean nor cls")
        self.spec = EncoderSpec(
            modality="image",
            model=choice.model,
            revision=files.revision,
            files=files.sha256,
            preprocessing={"processor": type(self.processor).__name__, "layer": self.layer, "version": 3},
            pooling=self.pooling,
            dtype=device.dtype,
            dim=self._dim(choice),
            space="shared" if self.pooling == "joint" else "own",
            fixed_batch=device.fixed_batch,
        )

    def _dim(self, choice: ModelChoice) -> int:
        """Length of a vector, seen on a blank picture: configurations name it in many ways."""
        from PIL import Image

        blank = self.pixels(Image.new("RGB", (64, 64)))
        try:
            return int(self.batches.run(self._forward, [blank]).shape[1])
        except IndexError as e:
            raise EncoderError(f"encoder '{choice.model}' has no hidden layer {choice.layer}") from e

    def prepare(self, payload: bytes) -> np.ndarray:
        """Pixels as the model's own processor makes them.

        Raises:
            DecodeError: the file cannot be decoded.
        """
        return self.pixels(decode_image(payload))

    def pixels(self, image: "Image.Image") -> np.ndarray:
        """Pixels (3, h, w) of a decoded image."""
        pixels: np.ndarray = self.processor(images=image, return_tensors="np")["pixel_values"][0]
        return pixels

    def _features(self, pixels: "torch.Tensor") -> "torch.Tensor":
        if self.pooling == "joint":
            output = self.model.get_image_features(pixel_values=pixels)
            return getattr(output, "pooler_output", output)
        tower = self.model.vision_model if self.joint else self.model
        output = tower(pixel_values=pixels, output_hidden_states=self.layer is not None)
        pooled = getattr(output, "pooler_output", None)
        if self.pooling == "pooler" and self.layer is None and pooled is not None:
            return pooled.flatten(1)
        hidden = output.last_hidden_state if self.layer is None else output.hidden_states[self.layer]
        if hidden.ndim == 4:  # feature maps (b, d, h, w)
            return hidden.flatten(2).mean(-1)
        return hidden[:, 0] if self.pooling == "cls" else hidden.mean(1)


class PatchRows(FlatEncoder):
    """Rows of patches as a sequence (8, 384) for the aligner's RNN; no weights of its own.

    32 x 32 px, centred to [-1, 1]; step t holds the t-th row of 4 x 4 px patches from left to right.
    """

    SIDE, PATCH = 32, 4

    def __init__(self, device: Device):
        self.device = device
        steps = self.SIDE // self.PATCH
        self.sequence = (steps, self.PATCH * self.SIDE * 3)
        self.spec = EncoderSpec(
            modality="image",
            model="patch-rnn",
            revision="1",
            files={},
            preprocessing={"side": self.SIDE, "patch": self.PATCH, "version": 2},
            pooling="rnn in the aligner",
            dtype="float32",
            dim=self.sequence[0] * self.sequence[1],
            sequence=self.sequence,
        )

    def prepare(self, payload: bytes) -> np.ndarray:
        """Sequence (8, 384) of an image file.

        Raises:
            DecodeError: the file cannot be decoded.
        """
        return self.pixels(decode_image(payload))

    def pixels(self, image: "Image.Image") -> np.ndarray:
        """Sequence (8, 384) of a decoded image."""
        small = image.resize((self.SIDE, self.SIDE))
        grid = np.asarray(small, np.float32) / 127.5 - 1.0
        n, p = self.sequence[0], self.PATCH
        patches = grid.reshape(n, p, n, p, 3).swapaxes(1, 2)  # (row, column, p, p, 3)
        return patches.reshape(self.sequence)

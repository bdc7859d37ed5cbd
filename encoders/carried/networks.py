"""Architectures of the pip-carried weights that no library brings: EfficientNet-Lite0 and musicnn.

Belongs here: modules and names of their weights. Does not: preprocessing, loading, running (``image``, ``audio``).
"""

import re

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

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


def lite0_module_name(key: str) -> str:
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


def build_lite0() -> nn.Module:  # noqa: C901 - one small network, told top to bottom
    """EfficientNet-Lite0 without its classifier, random weights; (b, 3, 224, 224) -> (b, 1280)."""

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
            self.skip, self.in_place = stride == 1 and cin == cout, False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x
            if self.expand is not None and self.expand_bn is not None:
                y = F.relu6(self.expand_bn(self.expand(y)), self.in_place)
            y = F.relu6(self.depthwise_bn(self.depthwise(y)), self.in_place)
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


class Pointwise(nn.Module):
    """A 1 x 1 convolution as a matrix product over the pixels of a channels-last batch.

    For one picture torch would pick a convolution that copies its input; this is several times as fast on a CPU.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = nn.Parameter(conv.weight.flatten(1)), conv.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, d, h, w), both channels-last in memory."""
        return F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


def for_inference(net: nn.Module) -> nn.Module:
    """The same function, faster: norms folded into convolutions, paddings into kernels, activations in place."""
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                conv = fuse_conv_bn_eval(getattr(module, name.removesuffix("_bn")), child)
                setattr(module, name.removesuffix("_bn"), _plain_conv(conv))
                setattr(module, name, nn.Identity())
        if hasattr(module, "in_place"):
            module.in_place = True  # type: ignore[assignment]
    return net


def _plain_conv(conv: nn.Conv2d) -> nn.Module:
    """A convolution that needs no padding before it, where its stride allows that."""
    kernel = conv.kernel_size[0]
    if kernel == 1 and conv.stride[0] == 1:
        return Pointwise(conv)
    if conv.stride[0] > 1:
        return conv
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, padding=kernel // 2, groups=conv.groups)
    plain.load_state_dict(conv.state_dict())
    return plain


def build_musicnn(variables: dict[str, np.ndarray]) -> nn.Module:  # noqa: C901 - one network, told top to bottom
    """Musicnn with a checkpoint's weights; log-mel (b, 187, 96) -> mean- and max-pooled features (b, 753) each.

    Args:
        variables: name in the TensorFlow checkpoint -> array.
    """

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(variables[name].copy())

    class ConvNorm(nn.Module):
        """Convolution -> ReLU -> batch norm (TensorFlow epsilon 1e-3); ``index`` names the checkpoint variables."""

        def __init__(self, index: int):
            super().__init__()
            suffix = f"_{index}" if index else ""
            self.weight = nn.Parameter(tensor(f"conv2d{suffix}/kernel").permute(3, 2, 0, 1).contiguous())
            self.bias = nn.Parameter(tensor(f"conv2d{suffix}/bias"))
            self.norm = _norm(index + 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(F.relu(F.conv2d(x, self.weight, self.bias)))

    def _norm(index: int) -> nn.BatchNorm2d:
        name = f"batch_normalization_{index}" if index else "batch_normalization"
        norm = nn.BatchNorm2d(len(variables[f"{name}/beta"]), eps=1e-3)
        state = {
            "weight": "gamma",
            "bias": "beta",
            "running_mean": "moving_mean",
            "running_var": "moving_variance",
        }
        norm.load_state_dict({k: tensor(f"{name}/{v}") for k, v in state.items()}, strict=False)
        return norm

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = _norm(0)
            self.timbral = nn.ModuleList([ConvNorm(0), ConvNorm(1)])
            self.temporal = nn.ModuleList([ConvNorm(2), ConvNorm(3), ConvNorm(4)])
            self.middle = nn.ModuleList([ConvNorm(5), ConvNorm(6), ConvNorm(7)])

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Log-mel (b, 187, 96) -> mean-pooled and max-pooled features (b, 753) each."""
            x = self.norm(x[:, None])
            padded = F.pad(x, (0, 0, 3, 3))
            parts = [conv(padded).amax(3) for conv in self.timbral]
            for conv in self.temporal:
                k = int(conv.state_dict()["weight"].shape[2])
                parts.append(conv(F.pad(x, (0, 0, (k - 1) // 2, k // 2))).amax(3))
            front = torch.cat(parts, 1)  # (b, 561, time)
            layers, y = [front], front
            for depth, conv in enumerate(self.middle):
                image = F.pad(y.transpose(1, 2)[:, None], (0, 0, 3, 3))  # (b, 1, time + 6, channels)
                z = conv(image).squeeze(3)  # (b, 64, time)
                y = z if depth == 0 else z + y
                layers.append(y)
            features = torch.cat(layers, 1)  # (b, 753, time)
            return features.mean(2), features.amax(2)

    return Net()

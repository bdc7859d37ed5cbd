"""Forward passes over rows in batches that the device can hold, and lengths that waste little padding.

Belongs here: cutting rows into batches, fixed shapes, halving after an out-of-memory, layers whose result does not
depend on the batch, what encoders of rows share. Does not: which size is best (``tuning``), what a row is (``text``,
``image``, ``audio``, ``video``).
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.base import Encoder, unit_rows
from encoders.device import Device

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

STABLE_ROWS = 16
ANY_ROWS = 64  # where no network runs, any number makes a batch
MAX_PADDING = 0.1  # share of a padded length that may be padding


def padded_length(tokens: int, longest: int) -> int:
    """Length that a sequence is padded to: at most a tenth is padding, and it depends on nothing but its own length.

    >>> [padded_length(n, 512) for n in (1, 9, 10, 11, 21, 31, 100, 511)]
    [1, 9, 10, 12, 23, 33, 105, 512]
    """
    length, step = 1, 1
    while length < tokens:
        step = max(1, int((length + 1) * MAX_PADDING) + 1 if length >= 10 else 1)
        length += step
    return min(length, longest)


class Batches:
    """Cuts rows into batches; remembers a size that the device could not hold.

    Args:
        device: its ``batch`` is the size in ``per_row`` units, ``fixed`` pads each batch to the full size.
    """

    def __init__(self, device: Device):
        self.device, self.limit = device, device.batch

    def rows(self, per_row: int = 1) -> int:
        """Rows of a full batch."""
        return max(1, self.limit // per_row)

    def run(
        self, forward: "Callable[[Sequence[Any]], torch.Tensor]", rows: Sequence[Any], per_row: int = 1
    ) -> np.ndarray:
        """Float32 results (n, d) of ``forward`` over all rows.

        Args:
            forward: a list of rows -> tensor (rows, d), run under inference mode.
            rows: n inputs of one shape.
            per_row: units of the batch size that one row takes.

        Raises:
            torch.OutOfMemoryError: a single row does not fit.
        """
        import torch

        out, start = [], 0
        while start < len(rows):
            size = self.rows(per_row)
            chunk = list(rows[start : start + size])
            full = size if self.device.fixed else len(chunk)
            try:
                with torch.inference_mode():
                    got = forward(chunk + chunk[-1:] * (full - len(chunk)))[: len(chunk)]
                    out.append(got.float().cpu().numpy())
            except torch.OutOfMemoryError:
                if full == 1:
                    raise
                self._halve(full, per_row)
                continue
            start += len(chunk)
        return np.concatenate(out)

    def _halve(self, tried: int, per_row: int) -> None:
        """Go on with half the rows that did not fit."""
        free_memory()
        self.limit = tried // 2 * per_row
        log.warning("%s ran out of memory with %d rows; going on with %d", self.device.name, tried, tried // 2)


def free_memory() -> None:
    """Give memory that is no longer used back to the device, for other processes and other shapes."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class RowEncoder:
    """An encoder whose prepared payloads are rows of a network's batch."""

    batches: Batches

    def rows(self, bucket: int) -> int:
        """Payloads of a full batch."""
        return self.batches.rows()

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (n, dim)."""
        return unit_rows(self.batches.run(self._forward, prepared))

    def _forward(self, chunk: Sequence[np.ndarray]) -> "torch.Tensor":
        raise NotImplementedError


class FlatEncoder:
    """An encoder without a network: prepared payloads of one shape are the features themselves."""

    def bucket(self, prepared: np.ndarray) -> int:
        """All features share one shape."""
        return 0

    def rows(self, bucket: int) -> int:
        """No network, so any number will do."""
        return ANY_ROWS

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Flat features scaled to unit rows (n, dim)."""
        return unit_rows(np.stack(prepared).reshape(len(prepared), -1))


def row_stable(model: Any) -> Any:
    """Let layers give a row the same bits whatever the number of rows is.

    The float32 kernels of CPUs treat fewer than ``STABLE_ROWS`` rows of a linear layer in another way, so fewer are
    filled up with zeros. Those of convolutions differ from one number of rows to the next where the processor has
    AVX-512, so rows go through one by one: large pictures and sounds take 5% longer, small ones up to twice as long.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            module.forward = partial(_filled_up, module.forward)  # type: ignore[method-assign]
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            module._conv_forward = partial(_one_by_one, module._conv_forward)  # type: ignore[method-assign]
    return model


def _filled_up(forward: "Callable[[torch.Tensor], torch.Tensor]", x: "torch.Tensor") -> "torch.Tensor":
    rows = x.numel() // x.shape[-1]
    if not 0 < rows < STABLE_ROWS or x.device.type != "cpu":
        return forward(x)
    filled = x.new_zeros((STABLE_ROWS, x.shape[-1]))
    filled[:rows] = x.reshape(rows, -1)
    return forward(filled)[:rows].reshape(*x.shape[:-1], -1)


def _one_by_one(
    convolve: "Callable[..., torch.Tensor]", x: "torch.Tensor", weight: "torch.Tensor", bias: "torch.Tensor | None"
) -> "torch.Tensor":
    import torch

    if x.ndim < weight.ndim or len(x) < 2 or x.device.type != "cpu":
        return convolve(x, weight, bias)
    return torch.cat([convolve(x[i : i + 1], weight, bias) for i in range(len(x))])


def to_device(array: np.ndarray, device: Device, dtype: "torch.dtype | None" = None) -> "torch.Tensor":
    """Tensor of an array on the device; copied from pinned memory, so that the copy overlaps with work."""
    import torch

    tensor = torch.from_numpy(array)
    if device.name.startswith("cuda"):
        tensor = tensor.pin_memory()
    return tensor.to(device.name, dtype, non_blocking=True)


def stacked_on(device: Device, rows: Sequence[np.ndarray], dtype: "torch.dtype | None" = None) -> "torch.Tensor":
    """Tensor (n, ...) of rows of one shape on the device; stacked in pinned memory, so that they are copied once."""
    import torch

    if not device.name.startswith("cuda"):
        return torch.from_numpy(np.stack(rows)).to(device.name, dtype)
    kind = torch.from_numpy(np.zeros(0, rows[0].dtype)).dtype
    pinned = torch.empty((len(rows), *rows[0].shape), dtype=kind, pin_memory=True)
    np.stack(rows, out=pinned.numpy())
    return pinned.to(device.name, non_blocking=True).to(dtype=dtype)


def encode_all(encoder: Encoder, sample: Sequence[Any]) -> np.ndarray:
    """Vectors (n, dim) of prepared payloads of any buckets, in their order."""
    out = np.zeros((len(sample), encoder.spec.dim), np.float32)
    buckets: dict[int, list[int]] = {}
    for i, prepared in enumerate(sample):
        buckets.setdefault(encoder.bucket(prepared), []).append(i)
    for at in buckets.values():
        out[at] = encoder.encode([sample[i] for i in at])
    return out

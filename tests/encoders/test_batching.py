"""Batches: bits do not depend on them, padding is short, memory runs out."""

from typing import Any

import pytest

from encoders.batching import Batches, padded_length, row_stable
from encoders.device import Device


def test_layers_give_a_row_the_same_bits_in_any_batch() -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = {
        (16, 40): nn.Sequential(nn.Conv1d(16, 32, 3, padding=1), nn.Conv1d(32, 32, 3, stride=2)),
        (32, 14, 14): nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.Flatten(), nn.Linear(16 * 14 * 14, 7)),
        (3, 4, 8, 8): nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4)),
    }
    for shape, net in layers.items():
        rows = torch.randn(9, *shape)
        row_stable(net)
        with torch.inference_mode():
            alone = torch.cat([net(rows[i : i + 1]) for i in range(9)])
            for number in range(2, 10):
                assert torch.equal(net(rows[:number]), alone[:number]), (shape, number)


def test_convolutions_of_any_signature_go_row_by_row() -> None:
    """On processors whose kernels are the same for any batch, the bits do not tell."""
    import torch
    from torch import nn

    seen: list[int] = []

    class Masked(nn.Conv1d):
        def _conv_forward(self, x: Any, weight: Any, bias: Any) -> Any:
            seen.append(len(x))
            return super()._conv_forward(x, weight, bias)

        def forward(self, x: Any, mask: Any = None) -> Any:
            return super().forward(x), mask

    layer = row_stable(nn.utils.parametrizations.weight_norm(Masked(2, 3, 3)))
    with torch.inference_mode():
        out, mask = layer(torch.ones(4, 2, 9), mask=7)
        assert layer(torch.ones(2, 9))[0].shape == (3, 7), "one row without a batch"
    assert out.shape == (4, 3, 7)
    assert mask == 7
    assert seen == [1, 1, 1, 1, 2]


def test_padding_never_exceeds_a_tenth() -> None:
    for longest in (64, 512, 8192):
        for n in range(1, longest + 1):
            padded = padded_length(n, longest)
            assert n <= padded <= longest
            assert (padded - n) <= 0.1 * padded
    assert len({padded_length(n, 512) for n in range(1, 513)}) < 60


class Gpu:
    """Stands in for a device that holds no more than ``room`` rows."""

    def __init__(self, room: int):
        self.room = room
        self.seen: list[int] = []

    def __call__(self, rows: Any) -> Any:
        import torch

        self.seen.append(len(rows))
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.tensor([[float(r)] for r in rows])


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    import torch

    gpu, batches = Gpu(3), Batches(Device("cuda", "bfloat16", 16, fixed=True))
    assert batches.run(gpu, range(10)).ravel().tolist() == list(range(10))
    assert gpu.seen == [16, 8, 4, 2, 2, 2, 2, 2]
    loose, four = Gpu(3), Batches(Device("cuda", "bfloat16", 1000))
    assert four.run(loose, range(4)).ravel().tolist() == [0, 1, 2, 3]
    assert loose.seen == [4, 2, 2], "half of the rows that were tried, not of the size that they were fewer than"
    gpu.seen.clear()
    batches.run(gpu, range(3))
    assert gpu.seen == [2, 2], "the size is remembered, short batches are filled up"
    with pytest.raises(torch.OutOfMemoryError):
        Batches(Device("cuda", "bfloat16", 4)).run(Gpu(0), range(2))

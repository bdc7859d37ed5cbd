"""Where tensors live and with how many threads: the device is chosen here, once.

Belongs here: ``Device``, its choice, thread limits. Does not: precision and batch size (``tuning``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from encoders.errors import DeviceError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Device:
    """Where tensors live, in which precision the forward pass runs, and how much of it at once.

    Attributes:
        name: torch device string.
        dtype: name of a torch dtype.
        batch: tokens (text) or rows (all else) of one forward pass; found by ``tuning``.
        fixed: every batch has exactly that shape, because the device's kernels depend on it.
    """

    name: str = "cpu"
    dtype: str = "float32"
    batch: int = 1
    fixed: bool = False

    def torch_dtype(self) -> "torch.dtype":
        """The torch dtype object."""
        import torch

        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.dtype]

    @property
    def fixed_batch(self) -> int:
        """What ``EncoderSpec.fixed_batch`` holds on this device."""
        return self.batch if self.fixed else 0


def one_thread() -> None:
    """One stream of work for the calling thread, for as long as it lives: the start of a thread of ours."""
    import torch

    torch.set_num_threads(1)


@contextmanager
def single_threaded() -> Iterator[None]:
    """While our threads share the cores, matrix libraries start none of their own.

    Idle threads of theirs spin, which costs as much as the work, and results would depend on the number of cores.
    Afterwards they have as many as they had before.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str = "auto", precision: str = "float32") -> Device:
    """Resolve the configured device; never falls back to the CPU in silence.

    Args:
        name: ``auto`` (CUDA when there, else CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: a dtype name.

    Raises:
        DeviceError: CUDA was asked for and is not there, or has fewer devices.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(
            f"compute.device = '{name}', but torch {torch.__version__} sees no CUDA device. "
            "Install a CUDA build of torch, or set compute.device to 'cpu' or 'auto'."
        )
    number = int(name.partition(":")[2] or 0)
    if name.startswith("cuda") and number >= torch.cuda.device_count():
        known = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        raise DeviceError(f"compute.device = '{name}', but this machine has {known}; name one of these, or 'auto'.")
    return Device(name, precision)

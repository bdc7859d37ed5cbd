"""The device is chosen once, never falls back in silence, and threads are given back."""

import pytest
import torch
from threadpoolctl import threadpool_info

from encoders.device import Device, choose_device, single_threaded
from encoders.errors import DeviceError


def blas_threads() -> set[int]:
    return {int(p["num_threads"]) for p in threadpool_info() if p["user_api"] == "blas"}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(("asked", "got"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
@pytest.mark.usefixtures("two_gpus")
def test_a_device_that_is_there_is_taken(asked: str, got: str) -> None:
    assert choose_device(asked, "bfloat16") == Device(got, "bfloat16")


@pytest.mark.usefixtures("two_gpus")
def test_a_number_beyond_the_devices_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"'cuda:7', but this machine has cuda:0, cuda:1"):
        choose_device("cuda:7")
    with pytest.raises(DeviceError, match=r"'cuda:2', but"):
        choose_device("cuda:2")


def test_without_cuda_auto_is_the_cpu_and_cuda_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").name == "cpu"
    with pytest.raises(DeviceError, match="sees no CUDA device"):
        choose_device("cuda")


def test_choosing_a_device_changes_no_threads_and_a_block_gives_back_what_it_found() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        choose_device("cpu")
        assert torch.get_num_threads() == 3
        found = blas_threads()
        with single_threaded():
            assert torch.get_num_threads() == 1
            assert blas_threads() == {1}
            with single_threaded():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1, "an inner block gives back what it found: one"
        assert torch.get_num_threads() == 3
        assert blas_threads() == found
        with pytest.raises(ZeroDivisionError), single_threaded():
            raise ZeroDivisionError
        assert torch.get_num_threads() == 3, "after an error, too"
    finally:
        torch.set_num_threads(before)

"""Encoders run here with as many threads as the stages give them: one."""

from collections.abc import Iterator

import pytest

from encoders.device import single_threaded


@pytest.fixture(autouse=True)
def _threads_of_a_stage() -> Iterator[None]:
    with single_threaded():
        yield

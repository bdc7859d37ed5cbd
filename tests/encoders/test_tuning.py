"""What is measured once a machine: precision and batch size."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from encoders import tuning
from encoders.base import EncoderSpec
from encoders.batching import Batches, encode_all
from encoders.catalogue import load
from encoders.device import Device, choose_device
from encoders.settings import ModelChoice
from encoders.tuning import tune
from tests import tiny
from tests.payloads import TEXTS


def test_batches_grow_only_while_the_last_one_has_the_same_bits() -> None:
    class Odd:
        """A batch of three has other bits."""

        spec = EncoderSpec("image", "odd", "", {}, {}, "", "float32", 2)

        def __init__(self, device: Device):
            self.device, self.batches = device, Batches(device)

        def prepare(self, payload: bytes) -> bytes:
            return payload

        def bucket(self, prepared: bytes) -> int:
            return 0

        def rows(self, bucket: int) -> int:
            return self.batches.rows()

        def encode(self, prepared: Sequence[bytes]) -> np.ndarray:
            return np.full((len(prepared), 2), 2.0 if len(prepared) == 3 else 1.0, np.float32)

    tuning = tune(Odd, "cpu", "float32", [b"a", b"b"])
    assert set(tuning.measured["throughput"]) == {"1", "2"}
    assert tuning.batch <= 2


@pytest.mark.slow
def test_bfloat16_where_it_is_as_good_and_pays(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from encoders import tuning

    name = choose_device("cpu").name

    def tuned_at(build: Callable[[Path], Path], speedup: float, precision: str = "auto") -> tuning.Tuning:
        monkeypatch.setattr(tuning, "bf16_speedup", lambda device: speedup)
        choice = ModelChoice(str(made(build)))
        return tune(lambda d: load("text", choice, d), name, precision, TEXTS[:9])

    fast = tuned_at(tiny.llama, 2.0)
    assert (fast.dtype, fast.fixed) == ("bfloat16", False)
    assert 0.999 <= fast.measured["min_cosine"] <= 1.0
    assert fast.batch > 16
    assert tuned_at(tiny.llama, 0.6).dtype == "float32", "no units for it"
    assert tuned_at(tiny.llama, 2.0, "float32").dtype == "float32", "the user decides"
    assert tuned_at(tiny.xlnet, 2.0).dtype == "float32", "a model that cannot run in it"
    monkeypatch.setattr(tuning, "MIN_COSINE", 1.1)
    assert tuned_at(tiny.llama, 2.0).dtype == "float32", "not good enough"
    one, two = (load("text", ModelChoice(str(made(tiny.llama))), Device(dtype=d)).spec for d in ("float32", "bfloat16"))
    assert one.digest() != two.digest()


class Fake:
    """An encoder of numbers; ``vector`` says what a row of a batch becomes."""

    spec = EncoderSpec("image", "fake", "", {}, {}, "", "float32", 1)
    net = None

    def __init__(self, device: Device):
        self.device, self.batches = device, Batches(device)

    def prepare(self, payload: bytes) -> int:
        return int(payload)

    def bucket(self, prepared: int) -> int:
        return 0

    def rows(self, bucket: int) -> int:
        return self.batches.rows()

    def encode(self, prepared: Sequence[int]) -> np.ndarray:
        return np.array([[self.vector(prepared, i)] for i in range(len(prepared))], np.float32)

    def vector(self, batch: Sequence[int], row: int) -> float:
        return float(batch[row])


class MindsNeighbours(Fake):
    """Other bits where the rows of a batch differ: one input repeated does not show it."""

    def vector(self, batch: Sequence[int], row: int) -> float:
        return float(batch[row]) + (1e-6 if len(set(batch)) > 1 and row else 0.0)


class MindsOddBatches(Fake):
    """Other bits in the last row of a batch of five or more, if their number is odd."""

    def vector(self, batch: Sequence[int], row: int) -> float:
        return float(batch[row]) + (1e-6 if len(batch) % 2 and len(batch) > 3 and row == len(batch) - 1 else 0.0)


def grown(kind: type[Fake], monkeypatch: pytest.MonkeyPatch) -> int:
    """The largest batch that is tried, with a throughput that always grows."""
    from encoders import tuning

    clock = iter(1 / (n + 1) ** 2 for n in range(10**6))
    monkeypatch.setattr(tuning, "_seconds", lambda work, clock_=None: (work(), next(clock))[1])
    monkeypatch.setattr(tuning, "LARGEST", 32)
    return tune(kind, "cpu", "float32", [b"1", b"2", b"3"]).batch


def test_a_batch_that_any_mix_or_number_of_rows_would_change_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grown(Fake, monkeypatch) == 32
    assert grown(MindsNeighbours, monkeypatch) == 1
    assert grown(MindsOddBatches, monkeypatch) == 4, "of eight rows seven or five may be the last of a night"


def test_texts_of_different_length_are_tried_together(made: Any) -> None:
    from encoders.tuning import _typical

    encoder = load("text", ModelChoice(str(made(tiny.llama))), Device("cpu", "float32", 64))
    rows, unit = _typical(encoder, [list(range(3, 3 + n)) for n in (20, 21, 40)])
    assert {encoder.bucket(r) for r in rows} == {unit}
    assert len({len(r) for r in rows}) > 1


@pytest.mark.parametrize("modality", ["text", "image", "audio", "video"])
def test_on_an_accelerator_the_shape_follows_from_the_modality_and_nothing_is_timed(
    modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from encoders import tuning

    def never(*args: object) -> None:
        raise AssertionError("a batch size was measured")

    monkeypatch.setattr(tuning, "_grow", never)
    spec = EncoderSpec(modality, "fake", "", {}, {}, "", "float32", 1)
    kind = type("Kind", (Fake,), {"spec": spec})
    found = tune(kind, "cuda", "float32", [b"1"])
    assert (found.batch, found.fixed) == (tuning.FIXED_BATCH[modality], True)
    assert found.device("cuda").fixed_batch == tuning.FIXED_BATCH[modality]


def test_a_gpu_and_a_cpu_never_share_an_identity(made: Any) -> None:
    """Vectors of both differ, so a network's digest tells the device apart; where nothing runs, it does not."""
    from encoders.tuning import FIXED_BATCH

    for modality, build in (
        ("text", tiny.llama),
        ("image", tiny.clip),
        ("audio", tiny.hubert),
        ("video", tiny.videomae),
    ):
        choice = ModelChoice(str(made(build)))
        own = {
            fixed: load(modality, choice, Device("cpu", "float32", FIXED_BATCH[modality], fixed)).spec.digest()
            for fixed in (False, True)
        }
        assert own[False] != own[True], modality
    plain = {load("audio", ModelChoice("mfcc"), Device("cpu", "float32", 64, f)).spec.digest() for f in (False, True)}
    assert len(plain) == 1


@pytest.mark.parametrize(
    ("model", "speedup", "precision", "dtype"),
    [
        ("minilm", 2.0, "auto", "bfloat16"),
        ("minilm", 1.2, "auto", "float32"),
        ("efficientnet-lite0", 2.0, "auto", "float32"),
        ("musicnn", 2.0, "float16", "float16"),
    ],
)
def test_what_is_known_of_carried_models_is_not_measured(
    model: str, speedup: float, precision: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "bf16_speedup", lambda name: speedup)

    class Carried:
        spec = SimpleNamespace(model=model)

        def prepare(self, payload: bytes) -> None:
            raise AssertionError("nothing is encoded")

    loaded: Any = Carried()
    found = tuning.tune(lambda device: loaded, "cpu", precision, [b"x"])
    assert (found.dtype, found.batch, found.fixed) == (dtype, 1, False)


def test_a_video_model_with_a_part_of_the_users_own_is_measured() -> None:
    parts = {n: SimpleNamespace(spec=SimpleNamespace(model=n)) for n in ("efficientnet-lite0", "musicnn", "own")}
    frames: Any = SimpleNamespace(
        spec=SimpleNamespace(model="frames"), image=parts["efficientnet-lite0"], audio=parts["musicnn"]
    )
    assert tuning._is_carried(frames)
    frames.image = parts["own"]
    assert not tuning._is_carried(frames)


@pytest.mark.slow
def test_carried_models_turn_no_vector_further_than_is_said() -> None:
    """Their distances in bfloat16, measured again on a few inputs of the demo's kind."""
    from encoders.catalogue import load
    from encoders.settings import ModelChoice

    texts = [
        f"A {noun} print: {scene}.".encode() for noun in ("reef", "dune", "neon") for scene in ("salt wind", "hot sand")
    ]
    exact, fast = (load("text", ModelChoice("minilm"), Device("cpu", d)) for d in ("float32", "bfloat16"))
    cosine = (
        (encode_all(exact, [exact.prepare(t) for t in texts]) * encode_all(fast, [fast.prepare(t) for t in texts]))
        .sum(1)
        .min()
    )
    assert cosine >= tuning.MIN_COSINE
    assert tuning.CARRIED["minilm"] >= tuning.MIN_COSINE

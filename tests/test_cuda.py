"""What must hold on a CUDA device, with its own kernels; skipped, and counted, where there is none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.base import Encoder
from encoders.batching import Batches, encode_all, free_memory
from encoders.catalogue import load
from encoders.device import Device, choose_device
from encoders.finetune import CoConsumption, finetune
from encoders.modalities import Modality
from encoders.settings import FinetuneSettings, ModelChoice
from encoders.space.alignment import load_aligner, train_aligner
from encoders.space.fusion import fuse_items
from encoders.tuning import FIXED_BATCH, tune
from pipelines.recommenders.base import Inputs
from pipelines.recommenders.ranking import top_k
from pipelines.recommenders.registry import RECOMMENDERS, classes, singles
from tests import tiny
from tests.payloads import PICTURES, SOUNDS, TEXTS, check_contract, has_weights
from tests.worlds import SETTINGS, World

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

Payloads = list[bytes]
CASES: list[tuple[Modality, Any, Payloads]] = [
    ("text", tiny.sentence_bert, TEXTS),
    ("text", tiny.gpt2, TEXTS),
    ("text", tiny.llama, TEXTS),
    ("image", "efficientnet-lite0", PICTURES),
    ("audio", "musicnn", SOUNDS),
]


def _choice(made: Any, model: Any) -> ModelChoice:
    if isinstance(model, str) and not has_weights(model):
        pytest.skip(f"the weights of {model} are not here")
    return ModelChoice(model if isinstance(model, str) else str(made(model)))


def _on_gpu(modality: Modality, choice: ModelChoice, precision: str, payloads: Payloads) -> Encoder:
    found = tune(lambda d: load(modality, choice, d), "cuda", precision, payloads)
    assert found.fixed, "kernels of a GPU depend on the size of a batch"
    assert found.batch == FIXED_BATCH[modality]
    return load(modality, choice, found.device("cuda"))


@pytest.mark.parametrize(("modality", "model", "payloads"), CASES)
def test_vectors_have_their_bits_alone_and_among_others_and_agree_with_the_cpu(
    made: Any, modality: Modality, model: Any, payloads: Payloads
) -> None:
    choice = _choice(made, model)
    encoder = _on_gpu(modality, choice, "auto", payloads)
    ours = check_contract(encoder, payloads)
    exact = load(modality, choice, Device())
    theirs = encode_all(exact, [exact.prepare(p) for p in payloads])
    assert (ours * theirs).sum(1).min() >= 0.999
    assert encoder.spec.digest() != exact.spec.digest(), "the device's vectors are not the CPU's"
    again = load(modality, choice, encoder.device)
    assert np.array_equal(ours, encode_all(again, [again.prepare(p) for p in payloads]))


@pytest.mark.parametrize(("modality", "model", "payloads"), CASES)
def test_in_float32_vectors_are_those_of_the_cpu_and_alone_the_same_up_to_rounding(
    made: Any, modality: Modality, model: Any, payloads: Payloads
) -> None:
    """Matrix products in float32 may sum in another order at another place of a batch: 1e-7 was seen on an H200."""
    choice = _choice(made, model)
    encoder, exact = _on_gpu(modality, choice, "float32", payloads), load(modality, choice, Device())
    prepared = [exact.prepare(p) for p in payloads]
    ours = encode_all(encoder, prepared)
    assert (ours * encode_all(exact, prepared)).sum(1).min() >= 0.99999
    assert np.abs(ours - np.concatenate([encoder.encode([p]) for p in prepared])).max() < 1e-6


def test_a_real_out_of_memory_halves_the_batch_and_nobody_fails() -> None:
    rows, wide = [np.full(8, i, np.float32) for i in range(64)], 1 << 20
    free_memory()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(512 * 2**20 / total)

    def forward(chunk: Any) -> torch.Tensor:
        x = torch.from_numpy(np.stack(chunk)).to("cuda")
        return x.repeat(1, wide).view(len(x), wide, 8).mean(1)  # 32 MiB a row

    batches = Batches(Device("cuda", batch=64))
    try:
        got = batches.run(forward, rows)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        free_memory()
    assert batches.limit < 64
    assert np.allclose(got, np.stack(rows))


def test_two_trainings_of_the_space_give_the_same_bytes_near_those_of_the_cpu(world: World) -> None:
    features, histories, _ = world
    weights, card = train_aligner(features, histories, SETTINGS, "cuda")
    again, _ = train_aligner(features, histories, SETTINGS, "cuda")
    assert weights == again
    slow, expected = train_aligner(features, histories, SETTINGS, "cpu")
    model, other = load_aligner(weights, card), load_aligner(slow, expected)
    ours, theirs = fuse_items(model.to("cuda"), features, "cuda"), fuse_items(other, features)
    cosine = (ours.vector * theirs.vector).sum(1)
    assert cosine.mean() > 0.99, "the same training, up to rounding"


def test_two_fine_tunings_give_the_same_bytes(model: Path) -> None:
    texts = [f"{'ocean wave' if i % 2 else 'desert dune'} {i}" for i in range(24)]
    pairs = CoConsumption(np.array([(i, j) for i in range(24) for j in range(24) if i != j and i % 2 == j % 2]))
    settings = FinetuneSettings(epochs=2, examples=64, batch_size=16, rank=4, method="lora", learning_rate=5e-3)
    rising = iter(range(9))
    files, card = finetune(ModelChoice(str(model)), texts, pairs, settings, lambda _: float(next(rising)), "cuda")
    rising = iter(range(9))
    again, _ = finetune(ModelChoice(str(model)), texts, pairs, settings, lambda _: float(next(rising)), "cuda")
    assert files
    assert files == again
    assert card["measured"]["peak_memory_mb"] > 0


def _with_users(inputs: Inputs) -> Inputs:
    """The same users and items, with a unified space in which a user is the mean of what was liked."""
    vectors = inputs.content["image"]
    users = np.asarray(inputs.positives @ vectors, np.float32)
    users /= np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-9)
    has_signal = np.diff(inputs.positives.indptr) > 0
    return replace(inputs, fused=vectors, user_vectors=users, has_signal=has_signal)


@pytest.mark.parametrize("name", singles(tuple(RECOMMENDERS)))
def test_recommenders_list_what_they_list_on_the_cpu(name: str, inputs: Inputs) -> None:
    inputs = _with_users(inputs)
    users = np.arange(inputs.positives.shape[0])
    there = replace(inputs, device=choose_device("cuda").name)
    try:
        ours, again, theirs = (classes()[name]().fit(i).score(i, users) for i in (there, there, inputs))
    except ImportError as e:
        pytest.skip(str(e))
    assert np.array_equal(ours, again)
    k = 10
    lists, _ = top_k(ours, k, inputs.positives, "cuda")
    expected, _ = top_k(theirs, k, inputs.positives)
    same = [len(np.intersect1d(a, b)) for a, b in zip(lists, expected, strict=True)]
    assert np.mean(same) >= 0.97 * k


def test_the_largest_of_many_items_with_ties_are_those_of_the_cpu() -> None:
    scores = np.random.default_rng(0).integers(0, 50, (32, 70_000)).astype(np.float32)
    for one, other in zip(top_k(scores, 20, None, "cuda"), top_k(scores, 20), strict=True):
        assert np.array_equal(one, other)

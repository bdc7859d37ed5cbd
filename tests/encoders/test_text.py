"""Text models: pooling, padding, the settings of their own files."""

from typing import Any

import numpy as np
import pytest

from encoders.batching import encode_all
from encoders.catalogue import load
from encoders.device import Device, choose_device
from encoders.settings import ModelChoice
from tests import tiny
from tests.payloads import LONG, TEXTS, need, vectors


def test_left_padding_gives_the_same_last_token(made: Any) -> None:
    """Right padding with the last true token equals what left padding with shifted positions gives."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = made(tiny.gpt2)
    ours = encode_all(
        encoder := load("text", ModelChoice(str(folder)), Device()), [encoder.prepare(t) for t in TEXTS[:7]]
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModel.from_pretrained(folder).eval()
    texts = [t.decode() or tokenizer.eos_token for t in TEXTS[:7]]
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=64)
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        last = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=positions
        ).last_hidden_state[:, -1]
    theirs = torch.nn.functional.normalize(last, dim=-1).numpy()
    assert np.abs(ours - theirs).max() < 1e-5


def test_sentence_settings_come_from_the_models_files(made: Any) -> None:
    encoder = load("text", ModelChoice(str(made(tiny.sentence_bert))), Device())
    assert encoder.spec.dim == 12
    assert encoder.spec.pooling == "cls"
    assert encoder.spec.preprocessing["max_tokens"] == 40
    assert encoder.spec.preprocessing["prompt"] == "passage: "
    assert len(encoder.prepare(LONG)) == 40
    bare = load("text", ModelChoice(str(made(tiny.sentence_bert)), prompt=""), Device())
    assert bare.prepare(b"abc") != encoder.prepare(b"abc")


def test_minilm_knows_what_is_alike() -> None:
    need("minilm")
    v = vectors(
        load("text", ModelChoice("minilm"), choose_device("cpu")),
        [b"a dog barks", b"a puppy is barking loudly", b"stock markets fell today"],
    )
    assert v[0] @ v[1] > 0.6 > 0.3 > v[0] @ v[2]


@pytest.mark.parametrize(
    ("build", "device", "plain"), [(tiny.llama, "cuda", True), (tiny.llama, "cpu", False), (tiny.gpt2, "cuda", False)]
)
def test_grouped_queries_take_plain_products_on_a_gpu(made: Any, build: Any, device: str, plain: bool) -> None:
    import torch

    encoder: Any = load("text", ModelChoice(str(made(build))), Device())
    encoder.device = Device(device)
    with encoder._attention():
        assert torch.backends.cuda.flash_sdp_enabled() != plain
        assert torch.backends.cuda.math_sdp_enabled()

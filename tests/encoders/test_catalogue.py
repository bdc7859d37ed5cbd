"""Every kind of model by name: one contract, options, wrong names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.base import Encoder
from encoders.batching import Batches
from encoders.carried.weights import CARRIERS
from encoders.catalogue import check_model, load
from encoders.device import Device, choose_device
from encoders.errors import EncoderError
from encoders.modalities import Modality
from encoders.settings import ModelChoice
from tests import tiny
from tests.payloads import LONG, PICTURES, SOUNDS, TEXTS, VIDEOS, check_contract, need, tuned, vectors


@pytest.fixture(params=["text", "image", "audio", "minilm", "efficientnet-lite0", "musicnn", "mfcc"])
def case(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> tuple[Encoder, list[bytes]]:
    name = request.param
    modality: Modality
    if name in CARRIERS:
        need(name)
    modality = {"minilm": "text", "efficientnet-lite0": "image", "musicnn": "audio", "mfcc": "audio"}.get(name, name)
    model = str(tiny_models[name]) if name in tiny_models else name
    payloads = {"text": TEXTS, "image": PICTURES, "audio": SOUNDS}[modality]
    return tuned(modality, ModelChoice(model), payloads), payloads


@pytest.mark.slow
def test_vectors_are_unit_and_do_not_depend_on_neighbours(case: tuple[Encoder, list[bytes]]) -> None:
    encoder, payloads = case
    together = vectors(encoder, payloads)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([vectors(encoder, [p]) for p in payloads])
    assert np.array_equal(together, alone), "alone"
    order = np.random.default_rng(1).permutation(len(payloads))
    assert np.array_equal(together[order], vectors(encoder, [payloads[i] for i in order])), "shuffled"


def test_digest_covers_weights_and_preprocessing(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    device = choose_device("cpu")
    first = load("text", ModelChoice(str(tiny_models["text"])), device).spec
    shutil.copytree(tiny_models["text"], tmp_path / "moved")
    assert load("text", ModelChoice(str(tmp_path / "moved")), device).spec.digest() == first.digest(), (
        "a moved folder is the same model"
    )
    weights = tmp_path / "moved" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load("text", ModelChoice(str(tmp_path / "moved")), device).spec.digest() != first.digest()
    (tmp_path / "moved" / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    changed = load("text", ModelChoice(str(tmp_path / "moved")), device).spec
    assert changed.preprocessing["max_tokens"] == 16


def test_bad_models_are_named() -> None:
    weights = check_model("text", ModelChoice("minilm"))
    assert not weights or "python -m encoders.carried.weights" in weights[0]
    assert "embeds text, not audio" in check_model("audio", ModelChoice("minilm"))[0]
    assert "not a built-in (mfcc, mfcc-rnn, musicnn)" in check_model("audio", ModelChoice("nobody/nothing"))[0]


PAYLOADS: dict[Modality, list[bytes]] = {
    "text": [*TEXTS[:20], LONG],
    "image": PICTURES[:7],
    "audio": SOUNDS[:4],
    "video": VIDEOS,
}


CASES: list[tuple[Modality, Callable[[Path], Path], dict[str, Any]]] = [
    ("text", tiny.gpt2, {}),
    ("text", tiny.gpt2, {"pooling": "mean"}),
    ("text", tiny.llama, {"prompt": "Represent the product: "}),
    ("text", tiny.llama, {"layer": 1, "pooling": "weightedmean"}),
    ("text", tiny.xlnet, {}),
    ("text", tiny.sentence_bert, {}),
    ("text", tiny.sentence_bert, {"pooling": "max", "layer": -2}),
    ("text", tiny.clip, {}),
    ("text", tiny.siglip, {}),
    ("text", tiny.clap, {}),
    ("image", tiny.clip, {}),
    ("image", tiny.clip, {"pooling": "cls"}),
    ("image", tiny.siglip, {}),
    ("image", tiny.resnet, {}),
    ("image", tiny.dinov2, {}),
    ("image", tiny.dinov2, {"layer": 1, "pooling": "mean"}),
    ("audio", tiny.ast, {}),
    ("audio", tiny.hubert, {}),
    ("audio", tiny.hubert, {"layer": 1}),
    ("audio", tiny.whisper, {}),
    ("audio", tiny.clap, {}),
    ("video", tiny.videomae, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modality", "build", "options"), CASES, ids=["-".join([m, b.__name__, *map(str, o)]) for m, b, o in CASES]
)
def test_architectures(
    made: Callable[[Callable[[Path], Path]], Path], modality: Modality, build: Callable[[Path], Path], options: Any
) -> None:
    choice = ModelChoice(str(made(build)), **options)
    assert check_model(modality, choice) == []
    encoder = tuned(modality, choice, PAYLOADS[modality])
    check_contract(encoder, PAYLOADS[modality])
    joint = build in (tiny.clip, tiny.siglip, tiny.clap) and not options
    assert encoder.spec.space == ("shared" if joint else "own")
    plain = load(modality, ModelChoice(str(made(build))), Device()).spec
    assert (plain.digest() == encoder.spec.digest()) == (not options), "options are part of the identity"


def test_towers_of_one_checkpoint_share_a_space(made: Any) -> None:
    for build, other in ((tiny.clip, "image"), (tiny.siglip, "image"), (tiny.clap, "audio")):
        choice = ModelChoice(str(made(build)))
        one, two = load("text", choice, Device()).spec, load(other, choice, Device()).spec
        assert one.dim == two.dim
        assert one.files == two.files
        assert one.space == two.space == "shared"
        assert one.digest() != two.digest()


def test_wrong_options_are_named(made: Any) -> None:
    with pytest.raises(EncoderError, match="pooling 'median' is not one of"):
        load("text", ModelChoice(str(made(tiny.gpt2)), pooling="median"), Device())
    with pytest.raises(EncoderError, match="layer = 9, but it has layers 0 to 2"):
        load("text", ModelChoice(str(made(tiny.llama)), layer=9), Device())
    with pytest.raises(EncoderError, match="no hidden layer 9"):
        load("image", ModelChoice(str(made(tiny.dinov2)), layer=9), Device())
    with pytest.raises(EncoderError, match="neither mean nor cls"):
        load("image", ModelChoice(str(made(tiny.dinov2)), pooling="max"), Device())


@pytest.mark.parametrize(("modality", "name"), [("image", "patch-rnn"), ("audio", "mfcc-rnn")])
def test_sequences_for_the_aligners_rnn(modality: Modality, name: str) -> None:
    import torch

    from encoders.space.fusion import SequenceProjection

    encoder = load(modality, ModelChoice(name), Device())
    vectors = check_contract(encoder, PAYLOADS[modality])
    assert encoder.spec.sequence
    steps, features = encoder.spec.sequence
    assert steps * features == encoder.spec.dim
    torch.manual_seed(0)
    net = SequenceProjection((steps, features), 8)
    x = torch.from_numpy(vectors).requires_grad_()
    net(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    short = torch.from_numpy(vectors[:1]).view(1, steps, features).clone()
    short[:, steps // 2 :] = 0
    alone = SequenceProjection((steps // 2, features), 8)
    alone.load_state_dict(net.state_dict())
    alone.scale = net.scale
    assert torch.allclose(net(short.flatten(1)), alone(short[:, : steps // 2].flatten(1)), atol=1e-6), (
        "padding is masked"
    )


@pytest.mark.slow
def test_networks_and_inputs_go_where_they_should(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Device code without a device: on ``meta`` every tensor that is left on the CPU by mistake is an error."""
    import torch

    cases: list[tuple[Modality, Callable[[Path], Path], str]] = [
        ("text", tiny.xlnet, "float32"),
        ("image", tiny.clip, "bfloat16"),
        ("audio", tiny.hubert, "bfloat16"),
        ("video", tiny.videomae, "bfloat16"),
    ]
    for modality, build, dtype in cases:
        encoder: Any = load(modality, ModelChoice(str(made(build))), Device("cpu", dtype, 4))
        prepared = encoder.prepare(PAYLOADS[modality][1])
        encoder.model.to("meta")
        encoder.device = Device("meta", dtype, 4)
        encoder.batches = Batches(encoder.device)
        seen: list[torch.Tensor] = []
        monkeypatch.setattr(torch.Tensor, "numpy", lambda t: np.zeros(t.shape, np.float32))
        monkeypatch.setattr(torch.Tensor, "cpu", lambda t, seen=seen: (seen.append(t), t)[1])
        encoder.encode([prepared, prepared])
        monkeypatch.undo()
        assert seen, modality
        assert {t.device.type for t in seen} == {"meta"}
        assert next(encoder.model.parameters()).dtype == encoder.device.torch_dtype()

"""Every class of model with a tiny one of the real architecture, and the contract that all of them keep."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoders.base import Encoder, EncoderSpec
from encoders.batching import Batches, encode_all, padded_length, row_stable
from encoders.catalogue import check_model, load
from encoders.decode.video import decode_video
from encoders.device import Device, choose_device
from encoders.errors import DecodeError, EncoderError
from encoders.modalities import Modality
from encoders.settings import ModelChoice
from encoders.tuning import tune
from encoders.video import attention_pool
from tests import tiny
from tests.test_encoders import PICTURES, SOUNDS, TEXTS, need, sound, tuned

LONG = ("long " * 400).encode()


def video(seconds: float = 2.0, fps: int = 10, size: tuple[int, int] = (64, 48), hz: float | None = 440.0) -> bytes:
    """An MP4 whose red grows with time, with a tone unless ``hz`` is None."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height = size
        track = container.add_stream("aac", rate=16_000, layout="mono") if hz else None
        n = int(seconds * fps)
        for i in range(n):
            picture = Image.new("RGB", size, (int(255 * i / max(1, n - 1)), 40, 120))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
        if track is not None:
            wave = np.sin(2 * np.pi * (hz or 0) * np.arange(int(16_000 * seconds)) / 16_000).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux([*track.encode(frame), *track.encode(None)])
    return out.getvalue()


VIDEOS = [video(s, size=z, hz=h) for s, z, h in ((0.3, (64, 48), None), (1.0, (32, 80), 220.0), (3.0, (64, 48), 880.0))]
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], Path]], Path]:
    """Folder of a tiny model, made once."""
    import torch

    root, known = tmp_path_factory.mktemp("tiny"), {}

    def make(build: Callable[[Path], Path]) -> Path:
        name = build.__name__
        if name not in known:
            torch.manual_seed(0)
            (root / name).mkdir()
            known[name] = build(root / name)
        return known[name]

    return make


def check_contract(encoder: Encoder, payloads: list[bytes]) -> np.ndarray:
    """Unit float32 rows in order, the same bits alone, shuffled and among others."""
    prepared = [encoder.prepare(p) for p in payloads]
    together = encode_all(encoder, prepared)
    assert together.dtype == np.float32
    assert together.shape == (len(payloads), encoder.spec.dim)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.encode([p]) for p in prepared])
    assert np.array_equal(together, alone), "alone"
    order = np.random.default_rng(0).permutation(len(payloads))
    assert np.array_equal(together[order], encode_all(encoder, [prepared[i] for i in order])), "shuffled"
    assert len({v.tobytes() for v in together}) >= min(3, len(payloads)), "different inputs have different vectors"
    return together


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

        def forward(self, x: Any, mask: Any = None) -> Any:  # type: ignore[override]
            return super().forward(x), mask

    layer = row_stable(nn.utils.parametrizations.weight_norm(Masked(2, 3, 3)))
    with torch.inference_mode():
        out, mask = layer(torch.ones(4, 2, 9), mask=7)
        assert layer(torch.ones(2, 9))[0].shape == (3, 7), "one row without a batch"
    assert out.shape == (4, 3, 7)
    assert mask == 7
    assert seen == [1, 1, 1, 1, 2]


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

        def encode(self, prepared: list[bytes]) -> np.ndarray:
            return np.full((len(prepared), 2), 2.0 if len(prepared) == 3 else 1.0, np.float32)

    tuning = tune(Odd, "cpu", "float32", [b"a", b"b"])
    assert set(tuning.measured["throughput"]) == {"1", "2"}
    assert tuning.batch <= 2


def test_towers_of_one_checkpoint_share_a_space(made: Any) -> None:
    for build, other in ((tiny.clip, "image"), (tiny.siglip, "image"), (tiny.clap, "audio")):
        choice = ModelChoice(str(made(build)))
        one, two = load("text", choice, Device()).spec, load(other, choice, Device()).spec  # type: ignore[arg-type]
        assert one.dim == two.dim
        assert one.files == two.files
        assert one.space == two.space == "shared"
        assert one.digest() != two.digest()


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


def test_frames_are_picked_by_time() -> None:
    frames, duration = decode_video(video(2.0, fps=10), 4)
    assert duration == pytest.approx(2.0, abs=0.11)
    red = [np.asarray(f)[..., 0].mean() for f in frames]
    assert np.allclose(np.diff(red), 255 / 4, atol=20), red
    assert len(decode_video(video(0.1, fps=10), 4)[0]) == 4, "fewer frames than asked for"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty_file"),
        (b"no video", "undecodable_video"),
        (sound(), "no_video_stream"),
        (video()[:300], "undecodable_video"),
    ],
    ids=["empty", "text", "sound", "cut"],
)
def test_broken_videos(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as e:
        decode_video(payload, 4)
    assert e.value.reason == reason


def test_videos_through_image_and_audio_encoders(made: Any) -> None:
    choice = ModelChoice("frames", image=str(made(tiny.dinov2)), audio="mfcc", frames=3)
    encoder = tuned("video", choice, VIDEOS)
    vectors = check_contract(encoder, VIDEOS)
    assert encoder.spec.dim == 32 + 79
    assert not vectors[0, 32:].any(), "a silent video has no sound part"
    assert np.linalg.norm(vectors[1, 32:]) == pytest.approx(0.5**0.5, abs=1e-4)
    only = load("video", ModelChoice("frames", image=str(made(tiny.dinov2)), audio="", frames=3), Device())
    assert only.spec.dim == 32
    assert only.spec.digest() != encoder.spec.digest()


def test_default_video_encoder() -> None:
    need("efficientnet-lite0")
    need("musicnn")
    encoder = load("video", ModelChoice("frames", frames=2), Device())
    assert encoder.encode([encoder.prepare(VIDEOS[1])]).shape == (1, 1280 + 1506)


def test_attention_prefers_what_is_typical() -> None:
    x = np.eye(4, dtype=np.float32)[[0, 0, 0, 3]]
    pooled = attention_pool(x)
    assert pooled[0] > 0.95, "a stray frame hardly counts"


def test_vector_files(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    matrix = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float16)
    matrix[3], matrix[4, 0] = 0, np.nan
    np.save(tmp_path / "image_feat.npy", matrix)
    encoder = load("image", ModelChoice(str(tmp_path / "image_feat.npy")), Device())
    vectors = check_contract(encoder, [b"2", b"0", b"1"])
    assert np.allclose(vectors[0], matrix[2] / np.linalg.norm(matrix[2].astype(float)), atol=1e-3)
    for item, reason in ((b"9", "no_vector"), (b"3", "zero_vector"), (b"4", "non_finite_vector")):
        with pytest.raises(DecodeError) as e:
            encoder.prepare(item)
        assert e.value.reason == reason
    (tmp_path / "image_feat.ids.txt").write_text("a\nb\nc\nd\ne\n")
    assert load("image", ModelChoice(str(tmp_path / "image_feat.npy")), Device()).prepare(b"c") == 2
    pq.write_table(pa.table({"item_id": ["x", "y"], "v": [[3.0, 4.0], [1.0, 0.0]]}), tmp_path / "v.parquet")
    table = load("text", ModelChoice(str(tmp_path / "v.parquet")), Device())
    assert np.allclose(table.encode([table.prepare(b"x")]), [[0.6, 0.8]])
    pq.write_table(pa.table({"item_id": ["x", "y"], "v": [[3.0], [1.0, 0.0]]}), tmp_path / "ragged.parquet")
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    for name, text in (
        ("ragged.parquet", "differ in length"),
        ("pickle.npy", "without pickles"),
        ("none.npy", "no vector file"),
    ):
        assert text in check_model("image", ModelChoice(str(tmp_path / name)))[0]


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
        self.room, self.seen = room, []

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
    gpu.seen.clear()
    batches.run(gpu, range(3))
    assert gpu.seen == [2, 2], "the size is remembered, short batches are filled up"
    with pytest.raises(torch.OutOfMemoryError):
        Batches(Device("cuda", "bfloat16", 4)).run(Gpu(0), range(2))


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

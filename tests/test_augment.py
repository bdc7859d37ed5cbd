"""Augmentation: every view can be made again, means something else than the original, and only training reads it."""

import io
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from encoders.augment import AUDIO_OPS, IMAGE_OPS, OPS, TEXT_OPS, augmented, generator
from encoders.decode.image import decode_image
from encoders.decode.sound import decode_audio
from encoders.modalities import Modality
from pipelines.config import Augment, load_config
from pipelines.lake.storage import Lake
from tests.conftest import FIRST, parquet_bytes, write_config


def picture() -> bytes:
    rng, out = np.random.default_rng(0), io.BytesIO()
    noise = Image.fromarray(rng.integers(0, 255, (8, 10, 3), dtype=np.uint8)).resize((100, 80))
    noise.save(out, "PNG")
    return out.getvalue()


def sound(seconds: float = 1.5, rate: int = 16_000) -> bytes:
    t, out = np.arange(int(seconds * rate)) / rate, io.BytesIO()
    rng = np.random.default_rng(0)
    soundfile.write(out, 0.4 * np.sin(2 * np.pi * 440 * t) + 0.02 * rng.standard_normal(len(t)), rate, format="WAV")
    return out.getvalue()


TEXT = ("the quick brown fox jumps over the lazy dog " * 5).strip().encode()
PAYLOADS: dict[Modality, bytes] = {"text": TEXT, "image": picture(), "audio": sound()}


@pytest.mark.parametrize("modality", sorted(PAYLOADS))
@pytest.mark.parametrize("op_at", range(6))
def test_every_op_is_seeded_by_content_and_epoch(modality: Modality, op_at: int) -> None:
    if op_at >= len(OPS[modality]):
        return
    op, payload = OPS[modality][op_at], PAYLOADS[modality]
    views = [augmented(modality, payload, [op], content, epoch) for content in "ab" for epoch in range(8)]
    again = [augmented(modality, payload, [op], content, epoch) for content in "ab" for epoch in range(8)]
    assert views == again
    assert len(set(views)) >= 2, "flip has two outcomes, the others many"
    if op != "flip":
        assert len(set(views)) > 8


def test_pictures_stay_pictures() -> None:
    image = decode_image(PAYLOADS["image"])
    for name, op in IMAGE_OPS.items():
        out = op(image, generator("x", name, 1))
        assert out.mode == "RGB"
        assert 0.4 * image.width <= out.width <= image.width
    assert IMAGE_OPS["rotate"](image, generator("x", "rotate", 0)).size == image.size
    tiny = Image.new("RGB", (1, 1))
    for name, op in IMAGE_OPS.items():
        assert op(tiny, generator("x", name, 1)).size == (1, 1)


def test_sounds_keep_what_they_should() -> None:
    wave, rate, _, _ = decode_audio(PAYLOADS["audio"])

    def peak_hz(x: np.ndarray) -> float:
        return float(np.fft.rfftfreq(len(x), 1 / rate)[np.abs(np.fft.rfft(x)).argmax()])

    for name in ("denoise", "noise", "time_mask", "frequency_mask", "pitch"):
        out = AUDIO_OPS[name](wave, rate, generator("x", name, 3))
        assert len(out) == len(wave), name
        assert np.isfinite(out).all(), name
    faster = AUDIO_OPS["speed"](wave, rate, generator("x", "speed", 1))
    assert 0.89 < len(faster) / len(wave) < 1.12
    assert peak_hz(faster) == pytest.approx(440 * len(wave) / len(faster), rel=0.01)
    assert peak_hz(AUDIO_OPS["pitch"](wave, rate, generator("x", "pitch", 1))) == pytest.approx(440, rel=0.13)
    noisy = AUDIO_OPS["noise"](wave, rate, generator("x", "noise", 1)) - wave
    assert -32 < 20 * np.log10(np.std(noisy) / np.std(wave)) < -13
    pure = 0.4 * np.sin(2 * np.pi * 440 * np.arange(len(wave)) / rate)
    pure[: len(pure) // 2] = 0  # what never stops is noise to a gate
    noisy = (pure + 0.02 * np.random.default_rng(1).standard_normal(len(pure))).astype(np.float32)
    cleaned = AUDIO_OPS["denoise"](noisy, rate, generator("x", "denoise", 1))
    assert np.std(cleaned - pure) < 0.8 * np.std(noisy - pure), "less noise, same tone"
    for name, op in AUDIO_OPS.items():
        assert np.isfinite(op(wave[:40], rate, generator("x", name, 1))).all(), "a click is a sound, too"


def test_texts_lose_words_only() -> None:
    words = TEXT.decode().split()
    for name, op in TEXT_OPS.items():
        kept = op(words, generator("x", name, 2))
        rest = iter(words)
        assert all(w in rest for w in kept), "order kept"
        assert 0.5 * len(words) < len(kept) < len(words)
        assert op(["one"], generator("x", name, 1)) == ["one"]
        assert op([], generator("x", name, 1)) == []


def test_unknown_ops_are_configuration_errors() -> None:
    with pytest.raises(ValueError, match="unknown augmentation image: 'swirl'"):
        Augment(image=("swirl",))  # type: ignore[call-arg]


@pytest.fixture
def night(tmp_path: Path, shop_raw: Path, tiny_models: dict[str, Path]) -> tuple[Path, Lake]:
    from pipelines.standardize import standardize

    models = {"text": str(tiny_models["text"]), "image": str(tiny_models["image"]), "audio": "mfcc"}
    path = write_config(tmp_path, models, "[augment]\nviews = 2", raw=shop_raw)
    config = load_config(path)
    lake = Lake(config.paths.data / "lake")
    list(standardize(config, lake, FIRST))
    return path, lake


def test_views_are_made_once_and_change_the_aligner_alone(night: tuple[Path, Lake]) -> None:
    from pipelines.align import align
    from pipelines.augment import augment, examples
    from pipelines.embed import embed

    config, lake, day = load_config(night[0]), night[1], FIRST
    for m in config.encoders:
        list(embed(config, lake, day, m))
    _, first = augment(config, lake, day)
    assert first.counters["encoded"] + first.counters["failed"] == first.counters["needed"] > 0
    before = parquet_bytes(lake.root / "aug_views")
    _, again = augment(config, lake, day)
    assert (again.counters["encoded"], again.counters["copied"]) == (0, first.rows)
    assert parquet_bytes(lake.root / "aug_views") == before
    rows = lake.read("aug_views", day)
    assert set(rows["modality"].to_pylist()) == {"text", "image", "audio"}
    by_view = rows.group_by(["modality", "view"]).aggregate([("content_sha256", "count")])
    assert by_view.num_rows == 6
    (with_views,) = align(config, lake, day)
    plain = config.model_copy(update={"augment": Augment()})  # type: ignore[call-arg]
    (without,) = align(plain, lake, day)
    assert without.content_digest != with_views.content_digest
    kinds = {e.modality: e for e in examples(config, lake, day)}
    assert set(kinds) == {"text", "image", "audio"}
    assert all(len(e.after) == 3 for e in kinds.values())


def test_a_night_shows_its_gallery(night: tuple[Path, Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    import dagster as dg

    from assets.definitions import build_defs

    job = build_defs(night[0]).resolve_job_def("nightly")
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(partition_key=date.isoformat(FIRST), instance=instance)
        assert done.success
        made = next(e for e in done.get_asset_materialization_events() if e.asset_key == dg.AssetKey("aug_views"))
        metadata = made.materialization.metadata
        assert "data:image/png;base64," in str(metadata["plot"].value)
        assert "\n  - " in str(metadata["texts_before_and_after"].value)
        seen = instance.fetch_observations(dg.AssetKey("emb_text"), limit=10).records
        assert seen, "progress is observed while the step runs"
        numbers = seen[0].asset_observation.metadata  # type: ignore[union-attr]
        assert {"done", "total", "items_per_second", "seconds_left", "share_reused"} <= set(numbers)

"""`python -m benchmarks.learning --config FILE --date D [--json] [--only ...]`: what views and fine-tuning give.

On a data set of yours (``examples/ml100k_posters.toml``), in a scratch lake: the catalogue of night D is embedded,
then

- ``augment``: the aligner with and without two views of each content, three seeds each;
- ``finetune``: each method and task of the text encoder, three epochs of 1,024 examples.

Everything is trained on early days, chosen on later ones, and measured on the last ones, which decided nothing.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, parser, show
from encoders.finetune import content_recall
from encoders.space.alignment import load_aligner
from encoders.space.fusion import fuse_items
from pipelines.align import align
from pipelines.augment import augment
from pipelines.config import Config, load_config
from pipelines.embed import embed
from pipelines.finetune import finetune
from pipelines.lake.cards import load_card
from pipelines.lake.storage import Lake
from pipelines.night.night import Night
from pipelines.standardize import standardize

VIEWS = 2
SEEDS = (0, 1, 2)
METHODS = ("lora", "full", "adalora", "adapter")
EPOCHS, EXAMPLES = 3, 1024


def _with(config: Config, section: str, **values: Any) -> Config:
    """The configuration with some settings of a section changed."""
    old: Any = getattr(config, section)
    new = old.model_copy(update=values) if hasattr(old, "model_copy") else replace(old, **values)
    return config.model_copy(update={section: new})


def _aligned(config: Config, lake: Lake, day: date, seed: int) -> dict[str, float]:
    """Train the aligner: Recall@10 between modalities on held-out items, content Recall@20 of the fused vectors."""
    list(align(_with(config, "aligner", seed=seed), lake, day))
    card = load_card(lake, "aligner", day)
    night = Night.of(config, lake, day)
    data = night.dataset()
    past = data.before(data.validation_days())
    weights = (lake.folder("model_aligner", day) / "aligner.safetensors").read_bytes()
    vectors = fuse_items(load_aligner(weights, card), night.features()).vector
    found = {f"{pair}_recall_at_10": values["recall_at_10"] for pair, values in card["retrieval"].items()}
    return found | {"fused_content_recall_at_20": content_recall(vectors, past.histories(), data.new_since(past))}


def bench_augment(config: Config, lake: Lake, day: date) -> Iterator[Figure]:
    """Means over the seeds with views, as ratios to those without."""
    means = {}
    for views in (0, VIEWS):
        changed = _with(config, "augment", views=views)
        if views:
            list(augment(changed, lake, day))
        runs = [_aligned(changed, lake, day, seed) for seed in SEEDS]
        means[views] = {name: float(np.mean([r[name] for r in runs])) for name in runs[0]}
    for name, value in means[VIEWS].items():
        base = means[0][name]
        yield Figure(f"views_{name}", value, "recall", f"no views, {base:.4f}", value / base, 1.0, "higher")


def bench_finetune(config: Config, lake: Lake, day: date) -> Iterator[Figure]:
    """Test Recall@20 of content recommendation by each method as a ratio to the untouched model; labels by accuracy."""
    for method in METHODS:
        yield from _tuned(_with(config, "finetune", method=method, task="co_consumption"), lake, day, method)
    yield from _tuned(
        _with(config, "finetune", method="full", task="labels", epochs=5, patience=5), lake, day, "labels"
    )


def _tuned(config: Config, lake: Lake, day: date, name: str) -> Iterator[Figure]:
    (manifest,) = finetune(config, lake, day)
    card = load_card(lake, "finetuned", day)
    seconds, epochs = manifest.counters["seconds"], len(card["history"]) - 1
    at, before, after = card["best_epoch"], card["recall_at_20_before"], card["recall_at_20_after"]
    chosen = f"untouched model, {before:.4f}"
    yield Figure(f"{name}_test_recall_at_20", after, "recall", chosen, after / before, 1.0, "higher")
    first, best = card["history"][0]["validation"], card["history"][at]["validation"]
    chosen = f"untouched model, {first:.4f}; epoch {at} of {epochs}"
    yield Figure(f"{name}_validation_recall_at_20", best, "recall", chosen, best / first, None, "higher")
    trained, share = card["trained_parameters"], card["trained_parameters"] / card["all_parameters"]
    yield Figure(f"{name}_trained_parameters", trained, "parameters", "all parameters", share, None, "lower")
    yield Figure(f"{name}_seconds", seconds, "s", f"{epochs} epochs, s each", seconds / epochs, None, "lower")
    for h in card["history"]:
        if "test_accuracy" in h:
            common = card["test_share_of_commonest_class"]
            losses = f"commonest class, {common:.3f}; losses {h['train_loss']:.3f} train, {h['test_loss']:.3f} test"
            accuracy = h["test_accuracy"]
            yield Figure(
                f"labels_accuracy_epoch_{h['epoch']}", accuracy, "share", losses, accuracy / common, 1, "higher"
            )


PARTS = {"augment": bench_augment, "finetune": bench_finetune}


def main() -> None:
    """Embed the catalogue once, run the parts and print each figure with its baseline."""
    command = parser(__doc__)
    command.add_argument("--config", type=Path, required=True, help="configuration whose raw data is used")
    command.add_argument("--date", type=date.fromisoformat, required=True, help="the night")
    command.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = _with(load_config(args.config), "paths", data=Path(folder))
        config = _with(config, "finetune", enabled=False, epochs=EPOCHS, examples=EXAMPLES, every_days=1)
        lake = Lake(config.paths.data / "lake")
        list(standardize(config, lake, args.date))
        for modality in sorted(config.encoders):
            list(embed(config, lake, args.date, modality))
        for part in args.only:
            show(PARTS[part](config, lake, args.date), args.json)


if __name__ == "__main__":
    main()

"""Assets of the feature layer: vectors of each modality, the aligner, items and users in one space."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets import plots
from assets.checks import check_specs, run_checks
from assets.metadata import (
    card_metadata,
    manifest_metadata,
    model_spec,
    plot_metadata,
    table_metadata,
    table_spec,
    texts_shown,
)
from assets.resources import DEVICE_POOL, Nightloom, day_of, failures_explained, lake_of
from encoders.modalities import Modality
from pipelines.config import Config


def build(partitions: dg.PartitionsDefinition, config: Config) -> list[Any]:
    """Embedding steps of the configured modalities, the aligner, the fusion."""
    tables = [f"emb_{m}" for m in sorted(config.encoders)]
    return [
        *([_finetuned(partitions)] if config.finetune.enabled else []),
        *(_embedding(m, partitions, config) for m in sorted(config.encoders)),
        *([_views(partitions, tables)] if config.augment.views else []),
        _aligner(partitions, [*tables, "aug_views"] if config.augment.views else tables),
        _fusion(partitions, tables),
    ]


def _embedding(modality: Modality, partitions: dg.PartitionsDefinition, config: Config) -> Any:
    name = f"emb_{modality}"
    if config.encoders[modality].is_vectors:
        deps = ["std_items"]
    elif modality == "text":
        deps = ["std_items", "std_user_content", *(["model_finetuned"] if config.finetune.enabled else [])]
    else:
        deps = ["std_media"]  # lists the media of items and uploads

    @dg.multi_asset(
        name=name,
        specs=[table_spec(name, "embedded", partitions, deps, code_version=config.digest("encoders"))],
        check_specs=check_specs(name),
        pool=DEVICE_POOL,
    )
    def embedding(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Encode what no earlier night has encoded."""
        from pipelines.embed import embed

        with failures_explained():
            config, day = nightloom.config(), day_of(context)
            lake = lake_of(config)
            manifest = embed(config, lake, modality, day, report=observed(context, name))
            facts: dict[str, Any] = {"model": config.encoders[modality].model, "encoder_digest": manifest.config_digest}
            facts |= {"encoder": dg.MetadataValue.json(manifest.spec)}
            yield dg.MaterializeResult(asset_key=name, metadata=table_metadata(lake, manifest) | facts)
            yield from run_checks(config, lake, name, day)

    return embedding


def _finetuned(partitions: dg.PartitionsDefinition) -> Any:
    text = "The text encoder trained on the log every few nights; a new model re-embeds the catalogue."
    spec = model_spec("model_finetuned", "embedded", partitions, ["std_items", "std_interactions"], text)

    @dg.multi_asset(name="model_finetuned", specs=[spec], pool=DEVICE_POOL)
    def model_finetuned(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Fine-tune the text encoder when it is due."""
        from pipelines.finetune import train
        from pipelines.lake.cards import load_card

        with failures_explained():
            config, day = nightloom.config(), day_of(context)
            lake = lake_of(config)
            manifest = train(config, lake, day)
            card = load_card(lake, "finetuned", day)
            numbers = {k: v for k, v in card.items() if isinstance(v, int | float)}
            last = card.get("history", [{}])[-1]
            numbers |= {f"last_{k}": v for k, v in last.items() if k != "epoch"}
            metadata = manifest_metadata(lake, manifest) | card_metadata(card) | numbers
            metadata |= plot_metadata(plots.finetune_curve(card))
            yield dg.MaterializeResult(asset_key="model_finetuned", metadata=metadata)

    return model_finetuned


def _views(partitions: dg.PartitionsDefinition, tables: list[str]) -> Any:
    @dg.multi_asset(
        name="aug_views",
        specs=[table_spec("aug_views", "embedded", partitions, tables)],
        check_specs=check_specs("aug_views"),
        pool=DEVICE_POOL,
    )
    def aug_views(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Encode augmented views of new content, for training."""
        from pipelines.augment import augment, examples

        with failures_explained():
            config, day = nightloom.config(), day_of(context)
            lake = lake_of(config)
            manifest = augment(config, lake, day, report=observed(context, "aug_views"))
            shown = list(examples(config, lake, day))
            yield dg.MaterializeResult(
                asset_key="aug_views",
                metadata=table_metadata(lake, manifest, plots.gallery(shown)) | texts_shown(shown),
            )
            yield from run_checks(config, lake, "aug_views", day)

    return aug_views


def observed(context: dg.AssetExecutionContext, name: str) -> Any:
    """Progress of a long step as observations of its asset, so that the UI shows it while it runs."""

    def report(progress: Any) -> None:
        numbers = {"done": progress.done, "total": progress.total, "items_per_second": round(progress.rate, 2)}
        numbers["seconds_left"] = round(progress.left_s, 1) if progress.rate else -1.0
        numbers["share_reused"] = round(progress.share_reused, 4)
        context.log_event(dg.AssetObservation(name, partition=context.partition_key, metadata=numbers))

    return report


def _aligner(partitions: dg.PartitionsDefinition, tables: list[str]) -> Any:
    text = "Projection, modality-token Transformer, attention pooling; cross-modal InfoNCE and an interaction loss."
    spec = model_spec("model_aligner", "embedded", partitions, [*tables, "std_interactions"], text)

    @dg.multi_asset(name="model_aligner", specs=[spec], pool=DEVICE_POOL)
    def model_aligner(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Train the unified space on what is known at the end of the day."""
        from pipelines.align import align
        from pipelines.lake.cards import load_card

        with failures_explained():
            config, day = nightloom.config(), day_of(context)
            lake = lake_of(config)
            manifest = align(config, lake, day)
            card = load_card(lake, "aligner", day)
            scores = {f"recall_at_10_{k}": v["recall_at_10"] for k, v in card["retrieval"].items()}
            metadata = (
                manifest_metadata(lake, manifest)
                | card_metadata(card)
                | scores
                | plot_metadata(plots.learning_curve(card))
            )
            yield dg.MaterializeResult(asset_key="model_aligner", metadata=metadata)

    return model_aligner


def _fusion(partitions: dg.PartitionsDefinition, tables: list[str]) -> Any:
    deps = {"feat_items": ["model_aligner"], "feat_users": ["model_aligner"]}

    @dg.multi_asset(
        name="fuse",
        specs=[table_spec(name, "features", partitions, list(d)) for name, d in deps.items()],
        check_specs=[c for name in deps for c in check_specs(name)],
        pool=DEVICE_POOL,
    )
    def fuse(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Put items and users into the unified space."""
        from pipelines.fuse import fuse as run

        with failures_explained():
            config, day = nightloom.config(), day_of(context)
            lake = lake_of(config)
            for manifest in run(config, lake, day):
                plot = plots.item_map(lake, day) if manifest.table == "feat_items" else None
                yield dg.MaterializeResult(asset_key=manifest.table, metadata=table_metadata(lake, manifest, plot))
                yield from run_checks(config, lake, manifest.table, day)

    return fuse

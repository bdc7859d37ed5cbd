"""Assets of the recommendation layer: fitted recommenders, ranked lists, and how last night's lists did."""

import warnings
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
)
from assets.resources import Nightloom, day_of, failures_explained, lake_of
from pipelines.config import Config
from pipelines.recommenders.registry import RECOMMENDERS

KEY_METRICS = (("ndcg", 10), ("recall", 20))


def build(partitions: dg.PartitionsDefinition, config: Config) -> list[Any]:
    """Search, training, scoring and evaluation steps of the configured recommenders."""
    models = [f"model_{n}" for n in config.recommend.models]
    searched = bool(config.recommend.search_days)
    return [
        *([_settings(partitions)] if searched else []),
        _models(partitions, models, ["model_settings"] if searched else ["feat_items", "feat_users"]),
        _lists(partitions, models),
        _evaluation(partitions),
    ]


def _settings(partitions: dg.PartitionsDefinition) -> Any:
    text = "Settings of the recommenders, searched every few nights on the last days before the night."
    spec = model_spec("model_settings", "models", partitions, ["feat_items", "feat_users"], text)

    @dg.multi_asset(name="model_settings", specs=[spec])
    def model_settings(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Search when it is due."""
        from pipelines.lake.cards import load_card
        from pipelines.search import search

        with failures_explained():
            config, day = nightloom.config(), day_of(context)
            lake = lake_of(config)
            manifest = search(config, lake, day)
            card = load_card(lake, "settings", day)
            metadata = (
                manifest_metadata(lake, manifest) | card_metadata(card) | plot_metadata(plots.tried_settings(card))
            )
            yield dg.MaterializeResult(asset_key="model_settings", metadata=metadata)

    return model_settings


def _models(partitions: dg.PartitionsDefinition, models: list[str], deps: list[str]) -> Any:
    specs = [
        model_spec(n, "models", partitions, list(deps), RECOMMENDERS[n.removeprefix("model_")].text) for n in models
    ]

    @dg.multi_asset(name="train_recommenders", specs=specs)
    def train_recommenders(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Fit every recommender on what is known at the end of the day."""
        from pipelines.lake.cards import load_card
        from pipelines.train import train

        with failures_explained():
            config, day = nightloom.config(), day_of(context)
            lake = lake_of(config)
            for name, manifest in train(config, lake, day).items():
                card = load_card(lake, name.removeprefix("model_"), day)
                yield dg.MaterializeResult(
                    asset_key=name, metadata=manifest_metadata(lake, manifest) | card_metadata(card)
                )

    return train_recommenders


def _lists(partitions: dg.PartitionsDefinition, models: list[str]) -> Any:
    tables = {"reco_candidates": models, "recommendations": ["reco_candidates"]}

    @dg.multi_asset(
        name="score",
        specs=[table_spec(name, "recommendations", partitions, list(deps)) for name, deps in tables.items()],
        check_specs=[c for name in tables for c in check_specs(name)],
    )
    def score(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Rank the catalogue for every user and say why."""
        from pipelines.score import score as run

        with failures_explained():
            config, day = nightloom.config(), day_of(context)
            lake = lake_of(config)
            for manifest in run(config, lake, day):
                plot = plots.reasons(lake, day) if manifest.table == "recommendations" else None
                yield dg.MaterializeResult(asset_key=manifest.table, metadata=table_metadata(lake, manifest, plot))
                yield from run_checks(config, lake, manifest.table, day)

    return score


def _evaluation(partitions: dg.PartitionsDefinition) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # the first day has no yesterday; no stable option says so
        yesterday = dg.TimeWindowPartitionMapping(
            start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
        )
    deps = [dg.AssetDep("reco_candidates", partition_mapping=yesterday), "std_interactions"]

    @dg.multi_asset(
        name="evaluate",
        specs=[table_spec("eval_offline", "evaluation", partitions, deps)],
        check_specs=check_specs("eval_offline"),
    )
    def evaluate(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        """Judge the lists of the night before by what users did today."""
        from pipelines.evaluate import evaluate as run

        with failures_explained():
            config, day = nightloom.config(), day_of(context)
            lake = lake_of(config)
            manifest = run(config, lake, day)
            rows = lake.read("eval_offline", day).to_pylist()
            wanted = [r for r in rows if r["slice"] == "all" and (r["metric"], r["k"]) in KEY_METRICS]
            facts = {f"{r['metric']}_at_{r['k']}_{r['model']}": r["value"] for r in wanted}
            yield dg.MaterializeResult(
                asset_key="eval_offline",
                metadata=table_metadata(lake, manifest, plots.metric_bars(lake, day))
                | plot_metadata(plots.accuracy_by_time(lake, day), "accuracy_by_time")
                | facts,
            )
            yield from run_checks(config, lake, "eval_offline", day)

    return evaluate

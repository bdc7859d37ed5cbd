"""The steps of a night: which stage each runs, and the assets that it makes. Specs derive from tables and models.

Belongs here: one row a step, parents, what a step yields. Does not: what a stage does (``pipelines``), numbers and
plots of an asset (``shown``), its checks (``checks``).
"""

import warnings
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fnmatch import fnmatch
from importlib import import_module
from typing import Any

import dagster as dg

from assets.checks import broken, check_specs, checked
from assets.metadata import OWNERS, model_spec, table_spec
from assets.resources import DEVICE_POOL, Nightloom, day_of, failures_explained
from assets.shown import metadata_of
from pipelines.config import Config
from pipelines.lake.health import serve_again
from pipelines.lake.models import Model, models
from pipelines.lake.schemas import Table
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.raw.places import DataError

Report = Callable[[Any], None]
Stage = Callable[[Config, Lake, date, Report, frozenset[str]], Iterator[Manifest]]

FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=28))
BY_HAND = ("standardize", "monitor")  # what a night begins with is never started by what it depends on
RAW = {
    "raw_interactions": "Event logs as the user drops them: CSV, JSON Lines or Parquet. Never modified.",
    "raw_items": "Catalogue files as the user drops them. Never modified.",
    "raw_user_content": "What users upload: reviews, pictures, sounds. Never modified.",
    "raw_users": "Who users are: any columns. Never modified.",
    "raw_controls": "What users wish to see more, less or never. Never modified.",
    "raw_media": "Images and sounds that rows refer to by path or URI. Never modified.",
}


@dataclass(frozen=True)
class Step:
    """One step of the nightly job.

    Attributes:
        name: of the step.
        run: the stage; what it yields becomes materializations.
        makes: tables and models.
        on_device: whether it takes turns on the device.
        verifies: whether everything that the configuration points at is checked first.

    Any of its assets can be made again alone. The stage writes the others too, to the same bytes, except for models,
    of which only those asked for are fitted.
    """

    name: str
    run: Stage
    makes: tuple[str, ...]
    on_device: bool = False
    verifies: bool = False


def steps(config: Config) -> list[Step]:
    """The steps of a configuration's nights, in the flow's order. Stages are imported when they run."""
    embedded = [
        Step(f"embed_{m}", _stage("embed", m, reports=True), (f"emb_{m}",), on_device=True)
        for m in sorted(config.encoders)
    ]
    every = [
        _step("standardize", verifies=True),
        *map(_step, ("monitor", "feedback", "experiment", "offpolicy")),
        _step("finetune", on_device=True),
        *embedded,
        Step("augment", _stage("augment", reports=True), _of_stage("augment"), on_device=True),
        *(_step(name, on_device=True) for name in ("align", "fuse")),
        *map(_step, ("label", "federate", "knowledge", "external", "search")),
        Step("train", _train, tuple(f"model_{n}" for n in config.recommend.models)),
        *map(_step, ("score", "similar", "evaluate", "credit", "tradeoff", "track", "report")),
    ]
    wanted = _wanted(config)
    return [step for step in every if wanted.get(step.name, True)]


def _wanted(config: Config) -> dict[str, bool]:
    """Step that a night may go without -> whether a configuration's nights have it."""
    r = config.recommend
    return {
        "experiment": bool(config.experiments),
        "offpolicy": r.explore is not None,
        "finetune": config.finetune.enabled,
        "augment": config.augment.views > 0,
        "align": bool(config.encoders),
        "fuse": bool(config.encoders),
        "label": bool(config.items.fill),
        "federate": config.federate is not None and config.federate.role == "site",
        "knowledge": bool(config.graphs),
        "external": bool(r.external),
        "search": r.search_days > 0,
        "credit": r.team is not None,
        "tradeoff": r.dials is not None,
        "track": bool(config.tracking),
    }


def _step(stage: str, **kind: bool) -> Step:
    """The step of a stage, of its name, that makes all that the stage writes."""
    return Step(stage, _stage(stage), _of_stage(stage), **kind)


def _of_stage(stage: str) -> tuple[str, ...]:
    """Tables and models that a stage writes."""
    return tuple(name for name, product in _products().items() if product.stage == stage)


def _products(config: Config | None = None) -> dict[str, Table | Model]:
    """Everything that a night may write, with the recommenders of a configuration."""
    return {**TABLES, **(models(config.recommend.models) if config else models())}


def _stage(name: str, *values: Any, reports: bool = False) -> Stage:
    """The stage ``pipelines.<name>.<name>``, imported when it runs.

    Args:
        name: of the module and of the function in it.
        values: what the stage takes behind configuration, lake and day.
        reports: whether it takes ``report`` behind that.
    """

    def run(config: Config, lake: Lake, day: date, report: Report, _: frozenset[str]) -> Iterator[Manifest]:
        stage = getattr(import_module(f"pipelines.{name}"), name)
        made: Iterator[Manifest] = stage(config, lake, day, *values, *([report] if reports else []))
        return made

    return run


def _train(config: Config, lake: Lake, day: date, _: Report, only: frozenset[str]) -> Iterator[Manifest]:
    from pipelines.train import train

    yield from train(config, lake, day, only={name.removeprefix("model_") for name in only})


# --- assets -----------------------------------------------------------------------------------------------------


def raw_specs() -> list[dg.AssetSpec]:
    """External assets: nightloom reads them and never writes them."""
    return [dg.AssetSpec(n, description=d, group_name="data", owners=OWNERS, kinds={"file"}) for n, d in RAW.items()]


def build(partitions: dg.PartitionsDefinition, config: Config) -> list[dg.AssetsDefinition]:
    """The assets of a configuration, a multi-asset a step."""
    every = steps(config)
    known = _products(config)
    products = {n: known[n] for s in every for n in s.makes}
    specs = {n: _spec(p, products, partitions, config) for n, p in products.items()}
    return [_assets(step, [specs[n] for n in step.makes]) for step in every]


def _spec(
    product: Table | Model, products: dict[str, Table | Model], partitions: dg.PartitionsDefinition, config: Config
) -> dg.AssetSpec:
    deps = [d for parent in product.parents for d in _parents(parent, products)]
    automation = None if product.stage in BY_HAND else dg.AutomationCondition.eager()
    if isinstance(product, Model):
        if product.name == "model_aligner":
            said = f"{product.description} Configured: {config.aligner.kind}, {config.aligner.dim} dimensions."
            product = replace(product, description=said)
        return model_spec(product, partitions, deps, automation)
    fresh = None if config.end_date or product.name != "recommendations" else FRESH  # a finished set stays as it is
    code = config.digest("encoders") if product.stage == "embed" else None
    return table_spec(product, partitions, deps, code, fresh, automation)


def _parents(parent: str, products: dict[str, Table | Model]) -> list[Any]:
    """Assets that an entry of ``parents`` stands for, see ``schemas.Table``."""
    if parent in RAW:
        return [parent]
    if parent.startswith("group:"):
        return [n for n, p in products.items() if p.group == parent.removeprefix("group:")]
    name, _, when = parent.partition("@")
    mapping = _yesterday() if when == "yesterday" else None
    return [dg.AssetDep(n, partition_mapping=mapping) for n in products if fnmatch(n, name)]


def _yesterday() -> dg.PartitionMapping:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # the first day has no yesterday; no stable option says so
        return dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True)


def _assets(step: Step, specs: list[dg.AssetSpec]) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=step.name,
        specs=specs,
        check_specs=[c for name in step.makes if name in TABLES for c in check_specs(name, specs[0].partitions_def)],
        pool=DEVICE_POOL if step.on_device else None,
        can_subset=True,
    )
    def materialize(context: dg.AssetExecutionContext, nightloom: Nightloom) -> Iterator[Any]:
        with failures_explained():
            config = nightloom.verified() if step.verifies else nightloom.config()
            lake, day = Lake.of(config), day_of(context)
            asked = {key.to_user_string() for key in context.selected_asset_keys}
            missing = set(asked)
            with _lists_kept(context, config, day):
                report = _observed(context, next(name for name in step.makes if name in asked))
                for manifest in step.run(config, lake, day, report, frozenset(asked)):
                    if manifest.table in asked and manifest.partition == context.partition_key:
                        missing.discard(manifest.table)
                        result = _result(config, lake, day, manifest, context.selected_asset_check_keys)
                        if "recommendations" not in step.makes:
                            _keep_lists(context, config, day, broken(result.check_results or []))
                        yield result
                    else:
                        context.log_event(_beside(manifest, day, step.name))
            if missing:
                raise dg.Failure(f"step {step.name} has not written {', '.join(sorted(missing))}")

    return materialize


@contextmanager
def _lists_kept(context: dg.AssetExecutionContext, config: Config, day: date) -> Iterator[None]:
    """Serve the lists of the last good night again where the data stops the night."""
    try:
        yield
    except DataError as e:
        _keep_lists(context, config, day, e.problems[0])
        raise


def _keep_lists(context: dg.AssetExecutionContext, config: Config, day: date, why: str) -> None:
    manifest = serve_again(config, Lake.of(config), day, why) if why else None
    if manifest:
        context.log_event(_beside(manifest, day, context.op.name))


def _result(
    config: Config, lake: Lake, day: date, manifest: Manifest, wanted: AbstractSet[dg.AssetCheckKey]
) -> dg.MaterializeResult[Any]:
    """A materialization with its metadata, and those checks of a table that are wanted."""
    from pipelines.night.night import Night

    night = Night.of(config, lake, day)
    found = checked(config, night, manifest.table) if manifest.table in TABLES else None
    key, asked = dg.AssetKey(manifest.table), {(w.asset_key, w.name) for w in wanted}
    return dg.MaterializeResult(
        asset_key=key,
        metadata=metadata_of(config, night, manifest, found.sample if found else None),
        check_results=[c for c in found.results if (key, c.check_name) in asked] if found else [],
    )


def _beside(manifest: Manifest, day: date, step: str) -> dg.AssetMaterialization | dg.AssetObservation:
    """What a step has written beside its own assets: an earlier day, or its part of a table that several write."""
    is_part = manifest.partition == day.isoformat()
    return (dg.AssetObservation if is_part else dg.AssetMaterialization)(
        manifest.table,
        partition=manifest.partition,
        description=f"by step {step} of night {day}",
        metadata={"dagster/row_count": manifest.rows},
    )


def _observed(context: dg.AssetExecutionContext, name: str) -> Report:
    """Progress of a long step as observations of its asset, so that the UI shows it while it runs."""

    def report(progress: Any) -> None:
        numbers = {"done": progress.done, "total": progress.total, "items_per_second": round(progress.rate, 2)}
        numbers["seconds_left"] = round(progress.left_s, 1) if progress.rate else -1.0
        numbers["share_reused"] = round(progress.share_reused, 4)
        context.log_event(dg.AssetObservation(name, partition=context.partition_key, metadata=numbers))

    return report

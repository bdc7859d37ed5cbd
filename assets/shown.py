"""What the UI shows of each materialization beside its row count: numbers, cards, plots. One function an asset.

Belongs here: which of it belongs to which asset. Does not: how a figure is drawn (``plots``), how metadata is built
(``metadata``).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets import plots
from assets.metadata import card_metadata, manifest_metadata, plot_metadata, table_metadata, texts_shown
from pipelines.config import Config
from pipelines.lake.still import pair_of
from pipelines.lake.storage import Manifest
from pipelines.lake.tables import TABLES

if TYPE_CHECKING:
    from pipelines.night.night import Night

Shown = Callable[[Config, "Night", Manifest], dict[str, Any]]
KEY_METRICS = (("ndcg", 10), ("recall", 20))


def metadata_of(config: Config, night: "Night", manifest: Manifest, sample: pa.Table | None) -> dict[str, Any]:
    """All metadata of a materialization.

    Args:
        config: of the night.
        night: the night.
        manifest: of the partition.
        sample: first rows of a table; None for a model.
    """
    extra = SHOWN.get(manifest.table, _nothing if manifest.table in TABLES else _card)
    base = manifest_metadata(night.lake, manifest) if sample is None else table_metadata(night.lake, manifest, sample)
    return base | extra(config, night, manifest)


def _nothing(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    return {}


def _card(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    return card_metadata(_card_of(night, manifest))


def _card_of(night: "Night", manifest: Manifest) -> dict[str, Any]:
    from pipelines.lake.cards import load_card

    return load_card(night.lake, manifest.table.removeprefix("model_"), night.day)


def _events(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    return plot_metadata(plots.events_by_day(night.events(), night.end, night.timezone))


def _quarantine(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    return plot_metadata(plots.rejects_by_reason(night.lake, night.day))


def _embedded(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    model = config.encoders[manifest.table.removeprefix("emb_")].model
    digest = {"encoder_digest": manifest.config_digest}
    return {"model": model, "encoder": dg.MetadataValue.json(manifest.spec)} | digest


def _views(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    from pipelines.augment import examples

    shown = list(examples(config, night.lake, night.day))
    return plot_metadata(plots.gallery(shown)) | texts_shown(shown)


def _finetuned(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    card = _card_of(night, manifest)
    numbers = {k: v for k, v in card.items() if isinstance(v, int | float)}
    numbers |= {f"last_{k}": v for k, v in card.get("history", [{}])[-1].items() if k != "epoch"}
    return card_metadata(card) | numbers | plot_metadata(plots.finetune_curve(card))


def _aligner(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    card = _card_of(night, manifest)
    scores = {f"recall_at_10_{k}": v["recall_at_10"] for k, v in card["retrieval"].items()}
    return card_metadata(card) | scores | plot_metadata(plots.learning_curve(card))


def _feat_items(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    pair = pair_of(night)
    cosine = {"cosine_with_night_before": pair.cosine} if pair and pair.comparable and len(pair.rows) else {}
    return (
        plot_metadata(plots.item_map(night.lake, night.day, night.items()))
        | plot_metadata(plots.two_nights(pair, night.day), "two_nights")
        | plot_metadata(plots.attention(night.lake, night.day), "attention")
        | cosine
    )


def _settings(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    card = _card_of(night, manifest)
    return card_metadata(card) | plot_metadata(plots.tried_settings(card))


def _recommendations(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    drawn = plots.scores(night.lake, night.day)
    return plot_metadata(plots.reasons(night.lake, night.day)) | plot_metadata(drawn, "scores")


def _evaluation(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    rows = night.lake.read("eval_offline", night.day).to_pylist()
    wanted = [r for r in rows if r["slice"] == "all" and (r["metric"], r["k"]) in KEY_METRICS]
    return (
        plot_metadata(plots.metric_bars(night.lake, night.day))
        | plot_metadata(plots.accuracy_by_time(night.lake, night.day), "accuracy_by_time")
        | plot_metadata(plots.accuracy_by_night(night.lake, night.day), "accuracy_by_night")
        | {f"{r['metric']}_at_{r['k']}_{r['model']}": r["value"] for r in wanted}
    )


def _feedback(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    rows = night.lake.read("feedback", night.day, ["shown", "clicked", "purchased"])
    if not rows.num_rows:
        return {}
    ways = {f"shown_by_{r['values']}": r["counts"] for r in pc.value_counts(rows["shown"]).to_pylist()}
    return ways | {f"share_{c}": pc.mean(rows[c]).as_py() for c in ("clicked", "purchased")}


def _experiments(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    rows = {r["experiment"]: r for r in night.lake.read("eval_experiments", night.day).to_pylist()}
    said = {f"decision_{name}": f"{r['decision']}: {r['reason']}" for name, r in rows.items()}
    return plot_metadata(plots.effects(night.lake, night.day)) | said


def _credit(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    """What each recommender adds, what is proposed, and the seconds that each took to fit."""
    rows = night.lake.read("eval_credit", night.day).to_pylist()
    said = {f"decision_{r['model']}": f"{r['decision']}: {r['reason']}" for r in rows if r["decision"] != "keep"}
    gains = {f"gain_{r['model']}": r["gain"] for r in rows if r["gain"] is not None}
    fits = {r["model"]: night.lake.require(f"model_{r['model']}", night.day).counters for r in rows}
    seconds = {f"seconds_{m}": c["fit_ms"] / 1000 for m, c in fits.items() if "fit_ms" in c}
    return plot_metadata(plots.credits(night.lake, night.day)) | said | gains | seconds


def _dials(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    from pipelines.night.dials import free_settings

    free = free_settings(night.lake.read("eval_dials", night.day).to_pylist())
    said = {
        f"free_{dial}": f"up to {setting:g}: " + ", ".join(f"{m} {a:.4g} -> {b:.4g}" for m, (a, b) in gains.items())
        for dial, (setting, gains) in free.items()
    }
    return plot_metadata(plots.tradeoff(night.lake, night.day)) | said


def _report(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    """Where the page is, and its size."""
    link = f"{config.report.url.rstrip('/')}/date={night.day}/index.html"
    return {"page": dg.MetadataValue.url(link), "open": f"nightloom report --date {night.day} --open"}


def _tracked(config: Config, night: "Night", manifest: Manifest) -> dict[str, Any]:
    return {
        "trackers": ", ".join(config.tracking),
        "kept_in": dg.MetadataValue.path(str(config.paths.data / "tracking")),
    }


SHOWN: dict[str, Shown] = {
    "std_interactions": _events,
    "quarantine": _quarantine,
    **{table: _embedded for table in TABLES if table.startswith("emb_")},
    "aug_views": _views,
    "model_finetuned": _finetuned,
    "model_aligner": _aligner,
    "feat_items": _feat_items,
    "model_settings": _settings,
    "recommendations": _recommendations,
    "feedback": _feedback,
    "eval_offline": _evaluation,
    "eval_experiments": _experiments,
    "eval_credit": _credit,
    "eval_dials": _dials,
    "reports": _report,
    "tracked": _tracked,
}

"""Pictures of tables for the asset pages: small PNGs, made where people would rather look than read."""

import io
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.decode.image import with_few_colours
from encoders.modalities import MODALITIES
from pipelines.lake.schemas import vectors_to_numpy
from pipelines.lake.still import Pair
from pipelines.lake.storage import Lake

MAX_POINTS = 2000
COLOURS = 64  # of a picture; Dagster keeps three copies of each


def _figure(width: float = 7.0, height: float = 3.4, **grid: Any) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained", **grid)


def _png(figure: Any, drawing: bool = True) -> bytes:
    from matplotlib import pyplot

    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90, metadata={"Software": None})
    pyplot.close(figure)
    return with_few_colours(out.getvalue(), COLOURS) if drawing else out.getvalue()


def events_by_day(events: pa.Table, end: datetime, timezone: str) -> bytes | None:
    """Events of each kind on the last thirty days before ``end``."""
    from pipelines.night.events import counts_by_day

    counts = counts_by_day(events, end - timedelta(days=30), timezone)
    days, kinds = sorted({day for day, _ in counts}), sorted({kind for _, kind in counts})
    if not kinds:
        return None
    figure, axes = _figure()
    bottom = np.zeros(len(days))
    for kind in kinds:
        values = np.array([counts.get((d, kind), 0) for d in days])
        axes.bar([d.strftime("%m-%d") for d in days], values, bottom=bottom, label=kind)
        bottom += values
    axes.set(title="events a day", ylabel="events")
    axes.tick_params(axis="x", rotation=60)
    axes.legend(fontsize=8)
    return _png(figure)


def rejects_by_reason(lake: Lake, day: date) -> bytes | None:
    """Rejected rows and files by reason code."""
    counts = Counter(lake.read("quarantine", day, ["reason"])["reason"].to_pylist())
    if not counts:
        return None
    figure, axes = _figure()
    names = sorted(counts, key=lambda n: counts[n])
    axes.barh(names, [counts[n] for n in names], color="tab:red")
    axes.set(title=f"quarantine {day}", xlabel="rows and files")
    return _png(figure)


def learning_curve(card: dict[str, Any]) -> bytes | None:
    """Losses of the aligner by step."""
    curve = card.get("curve")
    if not curve:
        return None
    figure, axes = _figure()
    for name in ("cross_modal", "interaction"):
        axes.plot([p["step"] for p in curve], [p[name] for p in curve], label=name)
    axes.set(title=f"aligner ({card['settings']['kind']})", xlabel="step", ylabel="InfoNCE (nats)")
    axes.legend()
    return _png(figure)


def finetune_curve(card: dict[str, Any]) -> bytes | None:
    """Losses and the validation metric of fine-tuning by epoch."""
    history = card.get("history")
    if not history:
        return None
    figure, axes = _figure()
    for name in ("train_loss", "test_loss"):
        points = [(h["epoch"], h[name]) for h in history if name in h]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(title=f"fine-tuning, best epoch {card['best_epoch']}", xlabel="epoch", ylabel="loss (nats)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    other = axes.twinx()
    epochs, validation = [h["epoch"] for h in history], [h["validation"] for h in history]
    other.plot(epochs, validation, "k--", marker="s", label="validation Recall@20")
    other.set_ylabel("Recall@20")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return _png(figure)


def item_map(lake: Lake, day: date, items: pa.Table) -> bytes | None:
    """Fused item vectors on their first two principal components, coloured by first category, else by domain."""
    vectors = vectors_to_numpy(lake.read("feat_items", day, ["vector"])["vector"])
    if len(vectors) < 3:
        return None
    rows = items.select(["categories", "domain"]).to_pylist()
    categories = [r["categories"][0] if r["categories"] else r["domain"] or "none" for r in rows]
    centred = vectors - vectors.mean(0)
    _, _, axes_of = np.linalg.svd(centred[:MAX_POINTS], full_matrices=False)
    points = centred @ axes_of[:2].T
    figure, axes = _figure(7, 5)
    common = [c for c, _ in Counter(categories).most_common(9)]
    for name in [*common, "other"]:
        shown = [i for i, c in enumerate(categories) if (c if c in common else "other") == name][:MAX_POINTS]
        if shown:
            axes.scatter(points[shown, 0], points[shown, 1], s=9, label=name)
    axes.set(title="items in the unified space (PCA)", xticks=[], yticks=[])
    axes.legend(fontsize=7, ncols=2)
    return _png(figure)


def attention(lake: Lake, day: date) -> bytes | None:
    """How much each modality counts in the fused vectors of the items that have it: quartiles, and the mean."""
    columns = [f"{c}_{m}" for m in MODALITIES for c in ("has", "attention")]
    table = lake.read("feat_items", day, columns)
    shares = {m: table.filter(table[f"has_{m}"])[f"attention_{m}"].drop_null().to_numpy() for m in MODALITIES}
    shares = {m: values for m, values in shares.items() if len(values)}
    if not shares:
        return None
    names = sorted(shares, key=lambda m: shares[m].mean())
    figure, axes = _figure(7, 1.2 + 0.5 * len(names))
    labels = [f"{m}\n{len(shares[m])} items" for m in names]
    axes.boxplot([shares[m] for m in names], orientation="horizontal", tick_labels=labels, showmeans=True, whis=(5, 95))
    axes.set(title="attention to each modality of the items that have it", xlabel="share of the attention", xlim=(0, 1))
    return _png(figure)


def two_nights(pair: Pair | None, day: date) -> bytes | None:
    """The same items on two nights, on the first two principal components of the earlier, each joined with itself."""
    if pair is None or len(pair.rows) < 3:
        return None
    centre = pair.earlier.mean(0)
    _, _, axes_of = np.linalg.svd((pair.earlier - centre)[:MAX_POINTS], full_matrices=False)
    before, now = (((v - centre) @ axes_of[:2].T)[:MAX_POINTS] for v in (pair.earlier, pair.now))
    figure, axes = _figure(7, 5)
    axes.plot(*np.stack([before, now], 1).transpose(2, 1, 0), color="0.8", linewidth=0.6, zorder=0)
    axes.scatter(*before.T, s=9, label=str(pair.before))
    axes.scatter(*now.T, s=9, label=str(day))
    same = f"mean cosine {pair.cosine:.3f}" if pair.comparable else "not the same frame"
    axes.set(title=f"the same items on two nights ({same})", xticks=[], yticks=[])
    axes.legend(fontsize=7)
    return _png(figure)


def reasons(lake: Lake, day: date) -> bytes | None:
    """Served rows by reason."""
    table = lake.read("recommendations", day, ["reason_code", "reason_modality"])
    pairs = zip(table["reason_code"].to_pylist(), table["reason_modality"].to_pylist(), strict=True)
    counts = Counter(f"{c} ({m})" if m else c for c, m in pairs)
    if not counts:
        return None
    figure, axes = _figure()
    names = sorted(counts, key=lambda n: counts[n])
    axes.barh(names, [counts[n] for n in names])
    axes.set(title=f"why items are recommended, {day}", xlabel="rows")
    return _png(figure)


PLACES = (1, 5, 20)  # whose scores are shown


def scores(lake: Lake, day: date) -> bytes | None:
    """Scores at some places of the served lists, of each recommender that serves."""
    table = lake.read("recommendations", day, ["model", "rank", "score"])
    models = sorted(pc.unique(table["model"]).to_pylist())
    if not models:
        return None
    figure, panels = _figure(max(7, 4 * len(models)), 3.4, ncols=len(models), squeeze=False)
    for axes, model in zip(panels[0], models, strict=True):
        mine = table.filter(pc.equal(table["model"], model))
        edges = np.histogram_bin_edges(mine["score"].to_numpy(), 40)
        for i, place in enumerate(PLACES):
            values = mine.filter(pc.equal(mine["rank"], place))["score"].to_numpy()
            if len(values):
                axes.hist(values, edges, histtype="step", lw=1.6, color=_colour(i), label=f"place {place}")
        axes.set(title=f"scores of {model}, {day}", xlabel="score", ylabel="lists")
        axes.legend(fontsize=8)
    return _png(figure)


FEW_USERS = 10  # below which a bar says little
BARS = ("all", "item_cold", "item_warm", "user_cold", "user_warm")  # slices; others are in the table


def metric_bars(lake: Lake, day: date, metric: str = "ndcg", k: int = 10) -> bytes | None:
    """One metric of every recommender by slice."""
    table = lake.read("eval_offline", day)
    rows = table.filter(pc.and_(pc.equal(table["metric"], metric), pc.equal(table["k"], k))).to_pylist()
    if not rows:
        return None
    slices = sorted({r["slice"] for r in rows if r["slice"] in BARS or r["slice"].startswith("segment=")})
    models = sorted({r["model"] for r in rows})
    value = {(r["model"], r["slice"]): r["value"] for r in rows}
    users = {r["slice"]: r["n_users"] for r in rows}
    figure, axes = _figure(10, 4)
    width = 0.85 / len(models)
    for i, model in enumerate(models):
        x = np.arange(len(slices)) + (i - (len(models) - 1) / 2) * width
        bars = axes.bar(x, [value.get((model, s), 0.0) for s in slices], 0.9 * width, label=model, color=_colour(i))
        for bar, few in zip(bars, [users[s] < FEW_USERS for s in slices], strict=True):
            bar.set(color="0.85") if few else None
    labels = [f"{s.replace('=', chr(10))}\n{users[s]} users" for s in slices]
    top = max((v for (_, s), v in value.items() if users[s] >= FEW_USERS), default=1.0)
    title = f"{metric}@{k} on {day}" + (
        f", grey: fewer than {FEW_USERS} users" if min(users.values()) < FEW_USERS else ""
    )
    axes.set(title=title, xticks=range(len(slices)), ylim=(0, 1.1 * top))
    axes.set_xticklabels(labels, fontsize=8)
    axes.legend(fontsize=8, ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return _png(figure)


def accuracy_by_time(lake: Lake, day: date, metric: str = "ndcg", k: int = 10) -> bytes | None:
    """A metric of each recommender against the seconds that it took to fit on the night before."""
    table = lake.read("eval_offline", day)
    wanted = {"metric": metric, "k": k, "slice": "all"}
    value = {r["model"]: r["value"] for r in table.to_pylist() if wanted.items() <= r.items()}
    yesterday = day - timedelta(days=1)
    made = {m: manifest for m in sorted(value) if (manifest := lake.manifest(f"model_{m}", yesterday))}
    seconds = {m: manifest.counters["fit_ms"] / 1000 for m, manifest in made.items() if "fit_ms" in manifest.counters}
    if not seconds:
        return None
    figure, axes = _figure()
    for i, (model, spent) in enumerate(seconds.items()):
        axes.scatter(max(spent, 1e-3), value[model], color=_colour(i))
        axes.annotate(model, (max(spent, 1e-3), value[model]), (4, 3), textcoords="offset points", fontsize=8)
    axes.set(title=f"accuracy on {day} against time", xscale="log", xlabel="seconds to fit", ylabel=f"{metric}@{k}")
    axes.margins(x=0.2, y=0.15)
    return _png(figure)


NIGHTS_SHOWN = 60


def accuracy_by_night(lake: Lake, day: date, metric: str = "ndcg", k: int = 10) -> bytes | None:
    """A metric of each recommender over the nights up to a day, that of the hybrid with its interval."""
    wanted = {"metric": metric, "k": k, "slice": "all"}
    curves: dict[str, list[tuple[date, dict[str, Any]]]] = {}
    for d in lake.days("eval_offline", day)[-NIGHTS_SHOWN:]:
        for r in lake.read("eval_offline", d).to_pylist():
            if wanted.items() <= r.items():
                curves.setdefault(r["model"], []).append((d, r))
    if max(map(len, curves.values()), default=0) < 2:
        return None
    figure, axes = _figure(9, 4)
    for i, (model, points) in enumerate(sorted(curves.items())):
        days, rows = [d for d, _ in points], [r for _, r in points]
        width = 2.5 if model == "hybrid" else 1.2
        axes.plot(days, [r["value"] for r in rows], color=_colour(i), lw=width, marker=".", label=model)
        if model == "hybrid" and all(r.get("low") is not None for r in rows):
            axes.fill_between(days, [r["low"] for r in rows], [r["high"] for r in rows], color=_colour(i), alpha=0.15)
    axes.set(title=f"{metric}@{k} of each night's lists", ylim=(0, None))
    _days_below(axes, {d for points in curves.values() for d, _ in points})
    axes.legend(fontsize=8, ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return _png(figure)


def _days_below(axes: Any, days: set[date]) -> None:
    """Some fifteen days as ticks of the x axis."""
    shown = sorted(days)[:: len(days) // 15 + 1]
    axes.set_xticks(shown, [d.strftime("%m-%d") for d in shown], rotation=45)


def effects(lake: Lake, day: date) -> bytes | None:
    """Effect of each arm on the metric of its experiment, with its interval, by night."""
    points: dict[str, list[tuple[date, dict[str, Any]]]] = {}
    for d in lake.days("eval_experiments", day)[-NIGHTS_SHOWN:]:
        for r in lake.read("eval_experiments", d).to_pylist():
            if r["relative"] is not None and r["low"] is not None and r["decided_on"] >= d:
                points.setdefault(f"{r['experiment']}: {r['arm']}, {r['metric']}", []).append((d, r))
    if not points:
        return None
    figure, axes = _figure(9, 4)
    for i, (name, found) in enumerate(sorted(points.items())):
        days = [datetime.combine(d, time(3 * (i % 8))) for d, _ in found]  # beside each other
        scale = [r["relative"] / r["effect"] if r["effect"] else 0.0 for _, r in found]
        middle = [r["relative"] for _, r in found]
        below = [r["relative"] - r["low"] * s for (_, r), s in zip(found, scale, strict=True)]
        above = [r["high"] * s - r["relative"] for (_, r), s in zip(found, scale, strict=True)]
        axes.errorbar(days, middle, [below, above], color=_colour(i), marker="o", capsize=3, lw=1.2, label=name)
    axes.axhline(0, color="tab:grey", lw=0.8)
    axes.set(title="effect on the metric, as a share of the first arm's mean")
    _days_below(axes, {d for found in points.values() for d, _ in found})
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return _png(figure)


def credits(lake: Lake, day: date) -> bytes | None:
    """What each recommender adds to the others, with its interval, and in the mean of the nights before."""
    rows = [r for r in lake.read("eval_credit", day).to_pylist() if r["gain"] is not None]
    if not rows:
        return None
    rows.sort(key=lambda r: (r["gain"], r["model"]))
    figure, axes = _figure(7, 1 + 0.35 * len(rows))
    gain, low, high = (np.array([r[c] for r in rows]) for c in ("gain", "low", "high"))
    axes.errorbar(gain, range(len(rows)), xerr=[gain - low, high - gain], fmt="o", capsize=3, label="tonight, 95%")
    means = [(r["mean_gain"], n) for n, r in enumerate(rows) if r["mean_gain"] is not None]
    axes.scatter(
        *zip(*means, strict=True), marker="D", color="tab:orange", label="mean of the nights"
    ) if means else None
    axes.axvline(0, color="tab:grey", lw=0.8)
    labels = [r["model"] + (f" ({r['decision']})" if r["decision"] != "keep" else "") for r in rows]
    axes.set(title="NDCG that each recommender adds to the others", yticks=range(len(rows)), yticklabels=labels)
    axes.legend(fontsize=8)
    return _png(figure)


_METRICS = ("ndcg", "diversity", "calibration", "gini", "popularity_lift", "coverage")
BUYS = {"diversity": "diversity", "calibration": "calibration", "exposure": "gini", "popularity": "popularity_lift"}


def tradeoff(lake: Lake, day: date) -> bytes | None:
    """What each dial costs in NDCG, with the interval of the difference, beside what it buys."""
    rows = lake.read("eval_dials", day).to_pylist()
    dials = [d for d in BUYS if any(r["dial"] == d for r in rows)]
    if not dials:
        return None
    figure, panels = _figure(3.1 * len(dials), 3.4, ncols=len(dials), squeeze=False)
    for n, (axes, dial) in enumerate(zip(panels[0], dials, strict=True)):
        mine = {m: sorted((r["setting"], r) for r in rows if (r["dial"], r["metric"]) == (dial, m)) for m in _METRICS}
        of = mine["ndcg"]
        plain = of[0][1]["value"]
        axes.plot([s for s, _ in of], [r["value"] for _, r in of], "k-o", ms=4, label=f"NDCG@{of[0][1]['k']}")
        axes.fill_between(
            [s for s, _ in of], [plain + r["low"] for _, r in of], [plain + r["high"] for _, r in of], color="0.85"
        )
        axes.set(title=dial, xlabel="setting", ylim=(0, None))
        other = axes.twinx()
        for i, metric in enumerate(dict.fromkeys((BUYS[dial], "coverage"))):
            points = [(s, r["value"]) for s, r in mine[metric]]
            other.plot(*zip(*points, strict=True), "--s", ms=3, color=_colour(i), label=metric) if points else None
        lines = [*axes.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
        axes.legend(handles=lines, fontsize=7, loc="center left")
        if n == 0:
            axes.set_ylabel("NDCG; grey: 95% of the difference to 0")
    return _png(figure)


def tried_settings(card: dict[str, Any]) -> bytes | None:
    """NDCG of all settings that the last search tried; the chosen ones stand out."""
    tried = card.get("tried")
    if not tried:
        return None
    figure, axes = _figure(7, 0.6 + 0.4 * len(tried))
    for row, (model, trials) in enumerate(sorted(tried.items())):
        values = [t["ndcg"] for t in trials]
        chosen = [t["ndcg"] for t in trials if {k: v for k, v in t.items() if k != "ndcg"} == card["settings"][model]]
        axes.scatter(values, [row] * len(values), color="tab:grey", alpha=0.6)
        axes.scatter(chosen[:1], [row], color="tab:red", marker="D", label="chosen" if row == 0 else None)
    axes.set(title=f"settings tried on {card['searched_on']}", xlabel="NDCG on validation users")
    axes.set(yticks=range(len(tried)), yticklabels=sorted(tried), ylim=(-0.6, len(tried) - 0.4))
    axes.legend(fontsize=8)
    return _png(figure)


def _colour(i: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20"]((2 * i + i // 10) % 20)  # ten strong colours, then their light ones


def gallery(examples: Sequence[Any]) -> bytes | None:
    """Pictures and spectrograms: the original on the left, its views beside it."""
    from matplotlib import mlab

    shown = [e for e in examples if e.modality != "text"]
    if not shown:
        return None
    columns = 1 + max(len(e.after) for e in shown)
    figure, axes = _figure(2.1 * columns, 1.7 * len(shown), nrows=len(shown), ncols=columns, squeeze=False)
    for row, example in zip(axes, shown, strict=True):
        for column, (axis, value) in enumerate(zip(row, [example.before, *example.after], strict=False)):
            if example.modality == "image":
                axis.imshow(value)
            else:
                power = np.asarray(mlab.specgram(value, NFFT=512, Fs=example.rate_hz, noverlap=256)[0])
                decibels = 10 * np.log10(np.maximum(power, max(power.max() * 1e-8, 1e-20)))  # 80 dB below the top
                axis.imshow(decibels, aspect="auto", origin="lower")
            axis.set(xticks=[], yticks=[], title="original" if column == 0 else f"view {column - 1}")
            axis.title.set_fontsize(8)
    return _png(figure, drawing=False)

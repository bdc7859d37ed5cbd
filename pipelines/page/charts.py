"""Charts of the report as SVG inside the page, in the page's own colours, light and dark.

Belongs here: how a curve, bars or a map are drawn. Does not: which numbers are shown (``numbers``, ``gallery``).
"""

import io
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from markupsafe import Markup

INK, FAINT = "#010203", "#040506"  # stand for the colours of the page's text and of its lines
COLOURS = ("#2f7ed8", "#d1495b", "#2e933c", "#b8860b", "#7b4fbf", "#00798c", "#e07a2f", "#8a8d91")
GREY = "#8a8d91"
FEW = 10  # users below which a bar is grey


@dataclass(frozen=True)
class Curve:
    """A number by night.

    Attributes:
        name: of the curve.
        days: nights.
        values: of each night.
        low: lower ends of intervals; none without.
        high: upper ends.
    """

    name: str
    days: Sequence[date]
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, color=FAINT)
    axes.grid(axis="y", color=FAINT, lw=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any, name: str, said: str) -> "Markup":
    """The figure as an element of the page; ``said`` is read out instead of it."""
    from markupsafe import Markup, escape
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "nightloom"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the measuring font lacks; the page's fonts have them
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace(FAINT, "var(--line)")
    text = (
        re.sub(r'\bid="', f'id="{name}-', text).replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    )
    text = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(said)}" ', 1)
    frame = f'<div class="chart" tabindex="0" role="group" aria-label="chart {name}">{text}</div>'
    return Markup(frame)  # noqa: S704, matplotlib has escaped its texts


def _plain(text: str) -> str:
    """A name that matplotlib reads neither as a formula nor as hidden, cut to what fits."""
    text = "\u200b" + text if text.startswith("_") else text
    return (text if len(text) <= 32 else text[:31] + "…").replace("$", r"\$")


def _legend(axes: Any, columns: int = 4) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            fontsize=8, labelcolor=INK, frameon=False, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.14)
        )


def by_night(name: str, curves: Sequence[Curve], label: str) -> "Markup | None":
    """Curves over nights; the first one with its interval, and on top."""
    if not curves:
        return None
    figure, axes = _figure(7.6, 3.1)
    days = sorted({d for c in curves for d in c.days})
    place = {d: n for n, d in enumerate(days)}
    for n, curve in reversed(list(enumerate(curves))):
        at, colour = [place[d] for d in curve.days], COLOURS[n % len(COLOURS)]
        axes.plot(
            at,
            curve.values,
            color=colour,
            marker="o",
            ms=4 if n == 0 else 2,
            lw=2 if n == 0 else 1,
            label=_plain(curve.name),
        )
        if curve.low:
            axes.fill_between(at, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
    shown = range(0, len(days), len(days) // 10 + 1)
    axes.set_xticks(list(shown), [days[n].strftime("%m-%d") for n in shown])
    axes.set_ylabel(label, color=INK, fontsize=8)
    axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        labels[::-1],
        fontsize=8,
        labelcolor=INK,
        frameon=False,
        ncols=4,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
    )
    latest = ", ".join(f"{c.name} {c.values[-1]:.4g}" for c in curves)
    return _svg(figure, name, f"{label} by night, {len(days)} nights; latest: {latest}")


def bars(name: str, rows: Sequence[Mapping[str, Any]], label: str) -> "Markup | None":
    """A bar a row with its interval: ``name``, ``value``, ``low``, ``high``, ``n``; grey below ``FEW`` users."""
    if not rows:
        return None
    figure, axes = _figure(7.6, 0.55 + 0.27 * len(rows))
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=FAINT, lw=0.5)
    at = np.arange(len(rows))[::-1]
    axes.barh(at, [r["value"] for r in rows], color=[GREY if r["n"] < FEW else COLOURS[0] for r in rows], height=0.68)
    known = [(y, r) for y, r in zip(at, rows, strict=True) if r["low"] is not None]
    axes.hlines([y for y, _ in known], [r["low"] for _, r in known], [r["high"] for _, r in known], color=INK, lw=1)
    axes.set_yticks(at, [f"{_plain(r['name'])} ({r['n']:,})" for r in rows])
    axes.set_xlabel(label, color=INK, fontsize=8)
    axes.margins(y=0.01)
    said = ", ".join(f"{r['name']} {r['value']:.3f}" for r in rows)
    return _svg(figure, name, f"{label}: {said}")


def stacked(name: str, days: Sequence[date], parts: Mapping[str, Sequence[float]], label: str) -> "Markup | None":
    """Bars a day, one part on the other."""
    if not days or not parts:
        return None
    figure, axes = _figure(7.6, 2.5)
    bottom = np.zeros(len(days))
    for n, (part, values) in enumerate(parts.items()):
        axes.bar(
            range(len(days)), values, bottom=bottom, color=COLOURS[n % len(COLOURS)], label=_plain(part), width=0.8
        )
        bottom += np.asarray(values, float)
    shown = range(0, len(days), len(days) // 10 + 1)
    axes.set_xticks(list(shown), [days[n].strftime("%m-%d") for n in shown])
    axes.set_ylabel(label, color=INK, fontsize=8)
    _legend(axes, 6)
    return _svg(figure, name, f"{label} by day, {days[0]} to {days[-1]}; the last day has {bottom[-1]:,.0f}")


def exposure(name: str, counts: np.ndarray) -> "Markup | None":
    """Lorenz curve of the places of lists: which share of the catalogue has which share of the places."""
    if not counts.sum():
        return None
    figure, axes = _figure(3.6, 3.0)
    ordered = np.sort(counts)[::-1].cumsum() / counts.sum()
    at = np.linspace(0, len(ordered), 101).astype(int)
    share = np.concatenate([[0], ordered])[at]
    axes.plot(at / len(ordered), share, color=COLOURS[0], lw=2)
    axes.plot([0, 1], [0, 1], color=FAINT, lw=1, ls="--")
    axes.set_xlabel("share of the catalogue, most listed first", color=INK, fontsize=8)
    axes.set_ylabel("share of all places", color=INK, fontsize=8)
    tenth = float(share[10])
    return _svg(figure, name, f"a tenth of the catalogue has {tenth:.0%} of the places")


def item_map(name: str, points: np.ndarray, groups: Sequence[str]) -> "Markup | None":
    """Items on two axes of the space, coloured by the most common groups."""
    if len(points) < 3:
        return None
    figure, axes = _figure(7.6, 4.2)
    axes.axis("off")
    common = sorted(Counter(groups).most_common(len(COLOURS) - 1), key=lambda g: (-g[1], g[0]))
    names = [g for g, _ in common]
    colour = {g: COLOURS[n] for n, g in enumerate(names)}
    for group in [*names, None]:
        at = [n for n, g in enumerate(groups) if g == group or (group is None and g not in colour)]
        if at:
            axes.scatter(
                *points[at].T,
                s=12,
                color=colour.get(group or "", GREY),
                alpha=0.75,
                lw=0,
                label=_plain(group or "other"),
            )
    _legend(axes)
    return _svg(figure, name, f"map of {len(points)} items; groups: {', '.join(names)}")

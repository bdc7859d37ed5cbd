"""Sections of the configuration file about running nights: what stops them, where they run, who is told, what is kept.

Does not belong here: what a night reads and makes (``sections``).
"""

from typing import Literal

from pydantic import Field

from pipelines.sections import Settings


class Thresholds(Settings):
    """Fixed ends of a number of a night's data, beside or instead of those that earlier days give."""

    warn_below: float | None = Field(None, description="its check warns below")
    warn_above: float | None = None
    stop_below: float | None = Field(None, description="the least that is usual, instead of what earlier days say")
    stop_above: float | None = None


class Guards(Settings):
    """When a night stops because of its data."""

    lost_rows: float = Field(
        0.5, ge=0, le=1, description="share of a usual day's rows that may be refused; duplicates do not count"
    )
    gone_rows: float = Field(
        0.5,
        ge=0,
        description="share of a usual day's events, or of a whole catalogue's items, that raw files may no longer have",
    )
    space_warn: float = Field(
        0.9, ge=-1, le=1, description="mean cosine of unchanged items with the night before, below which a check warns"
    )
    space_stop: float = Field(0.5, ge=-1, le=1, description="the same, below which the night stops")
    unknown_items: float = Field(
        0.2, ge=0, le=1, description="share of the night's events that may be of items that the catalogue does not have"
    )
    usual_days: int = Field(28, ge=0, description="days before a night that say what is usual; 0: anything is")
    usual_factor: float = Field(
        5.0, ge=1, description="a count is unusual above the median of these days times this, or below it through this"
    )
    usual_slack: float = Field(1.0, ge=0, description="scales how far a share may leave the range of these days")
    numbers: dict[str, Thresholds] = Field(
        {}, description="number of night_health or list_health -> warn_below, warn_above, stop_below, stop_above"
    )


Word = Literal["item", "items", "user", "users"]


class Report(Settings):
    """The page of a night; see ``pipelines.report``."""

    pictures: int = Field(150, ge=0, le=500, description="pictures at most; others are shown by their letters")
    url: str = Field(
        "http://127.0.0.1:3001",
        description="where lake/reports is served, for links; `nightloom ui` does so at this one",
    )
    words: dict[Word, str] = Field({}, description="what the house calls them, on the page")

    def word(self, name: Word) -> str:
        """What the house calls an item or a user."""
        return self.words.get(name, name)


class Alerts(Settings):
    """Who is told when a night fails; see ``assets.alerts``."""

    command: str = Field("", description="takes the message, one JSON object, on its standard input")
    url: str = Field("", pattern=r"^(https?://.*)?$", description="gets the message by POST")


class Records(Settings):
    """What Dagster remembers of nights."""

    keep_days: int = Field(
        0, ge=0, description="after which Dagster forgets a run, its events and logs; 0: never. Tables are not touched"
    )


class Compute(Settings):
    """Where the work runs."""

    runner: str = Field("FnApiRunner", description="Beam runner, by the name that Beam knows it")
    runner_options: tuple[str, ...] = Field((), description="pipeline options passed to Beam as they are")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    shard_rows: int = Field(2048, ge=1, description="payloads or users of one Beam element")

"""Sections of the configuration file: what each may set, defaults, and what cannot be.

Does not belong here: the file, and what holds between sections (``config``); anything that reads data.
"""

import codecs
import re
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from encoders.augment import OPS
from encoders.modalities import Modality
from encoders.settings import STRICT, AlignerSettings, FinetuneSettings
from pipelines.recommenders.registry import DOMAINS, EXTERNAL, USUAL, blend_of, known_recommender, singles

SOURCES = ("interactions", "items", "user_content", "users", "controls")  # of raw files, each a section
ModelName = Annotated[str, AfterValidator(known_recommender)]


class Settings(BaseModel):
    """Base of all sections: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Paths(Settings):
    """Where raw data is read and tables are written. Relative paths start at the config file's folder."""

    raw: str = Field(description="folder or fsspec URI (s3://, gs://) with interactions/, items/ and the others")
    data: Path = Field(description="local folder for the lake, caches and the Dagster home")
    allowed_uris: tuple[str, ...] = Field((), description="places outside raw that media references may name")


# what databases, pandas and R write for nothing, https://pandas.pydata.org/docs/reference/api/pandas.read_csv.html
NULLS = ("\\N", "NULL", "null", "None", "NaN", "nan", "NaT", "NA", "N/A", "n/a", "<NA>", "#N/A")


class Source(Settings):
    """How one kind of raw file is written. What is left on ``auto`` is found in each file, and said in the log."""

    path: str = Field(description="folder, file or glob (``events*.csv``) below paths.raw")
    columns: dict[str, str | tuple[str, ...]] = Field(
        {},
        description="our column -> column in the files, a path into nested data (items[].id, images[].large), several "
        "names of which the first found counts, or a rule (covers/{item_id}.jpg); unmapped ones keep our name",
    )
    defaults: dict[str, str] = Field({}, description="our column -> value where the files have none")
    sometimes: tuple[str, ...] = Field((), description="mapped columns that some or all files may lack")
    format: Literal["auto", "csv", "json", "parquet"] = Field("auto", description="csv is any delimited text")
    encoding: str = Field("auto", description="of text files, a name that Python knows, such as cp1252 or utf-16")
    delimiter: str = Field("auto", min_length=1, max_length=8, description="between the fields of delimited text")
    quoting: Literal["auto", "on", "off"] = Field("auto", description="whether a field may stand in double quotes")
    header: tuple[str, ...] = Field((), description="names of the columns where files have no header; or map numbers")
    records: str = Field("", description="path of the list that holds the rows, in a file of one JSON object")
    nulls: tuple[str, ...] = Field(NULLS, description="cells that mean nothing, beside empty ones")
    decimal: Literal["auto", ".", ","] = Field("auto", description="decimal sign of numbers in text")
    fill_down: dict[str, str] = Field(
        {}, description="our column -> column of the files; an empty cell takes the value above it while that is equal"
    )
    time_unit: Literal["auto", "iso", "s", "ms", "us", "ns", "excel"] = Field(
        "auto", description="unit of numeric times; excel counts days from 1899-12-30"
    )
    time_format: str = Field("auto", min_length=1, description="of times in text, as in %d/%m/%Y %H:%M")
    time_origin: str = Field("", description="ISO time that numeric times count from; epoch 1970 where it is empty")
    list_separator: str = Field("|", min_length=1, description="splits lists in text cells (categories, tags, media)")

    @model_validator(mode="after")
    def _readable(self) -> "Source":
        if self.encoding != "auto":
            try:
                codecs.lookup(self.encoding)
            except LookupError as e:
                raise ValueError(f"encoding '{self.encoding}' is unknown; for example utf-8, utf-16, cp1252") from e
        if self.time_origin:
            try:
                datetime.fromisoformat(self.time_origin)
            except ValueError as e:
                raise ValueError(f"time_origin '{self.time_origin}' is no ISO time (2016-06-14T04:00:00Z)") from e
        return self

    def names_of(self, column: str) -> tuple[str, ...]:
        """What the files may call one of our columns, the first that a file has counts."""
        named = self.columns.get(column, column)
        return (named,) if isinstance(named, str) else named


class EventsSource(Source):
    """The log."""

    session_minutes: int | None = Field(
        None,
        ge=1,
        description="pause after which a user's next event of a day begins a session, where events have none",
    )


class ItemsSource(Source):
    """The catalogue."""

    mode: Literal["changes", "snapshot"] = Field(
        "changes", description="whether files hold changes, or each dated file the whole catalogue of its day"
    )
    fill: tuple[Literal["categories", "tags"], ...] = Field(
        (), description="labels that are told from content, in item_labels, where an item has none of the kind"
    )


@dataclass(frozen=True, config=STRICT)
class Aligner(AlignerSettings):
    """The shared space, its training, and what a user is described by in it."""

    history: int = Field(default=50, ge=1, description="most recent items that describe a user")


class Augment(Settings):
    """Views of content for the aligner's contrastive loss; see ``encoders.augment``."""

    views: int = Field(0, ge=0, le=16, description="views of each content; 0 trains without")
    text: tuple[str, ...] = Field(("span_drop", "word_drop"), description="ops in order; none leaves a modality out")
    image: tuple[str, ...] = Field(("rotate", "crop", "flip", "colour"), description="likewise; there is also scale")
    audio: tuple[str, ...] = Field(
        ("speed", "noise", "time_mask", "frequency_mask"), description="likewise; there are also denoise and pitch"
    )

    def ops(self, modality: Modality) -> tuple[str, ...]:
        """Ops of a modality; none for video."""
        return tuple(getattr(self, modality, ()))

    @model_validator(mode="after")
    def _known(self) -> "Augment":
        wrong = [f"{m}: '{op}'" for m, names in OPS.items() for op in getattr(self, m) if op not in names]
        if wrong:
            raise ValueError(f"unknown augmentation {', '.join(wrong)}; known are {OPS}")
        return self


@dataclass(frozen=True, config=STRICT)
class Finetune(FinetuneSettings):
    """Training the text encoder on the log; see ``encoders.finetune``. Off unless ``enabled``."""

    enabled: bool = False
    task: Literal["co_consumption", "labels"] = Field(
        default="co_consumption", description="labels are first categories"
    )
    every_days: int = Field(
        default=7, ge=1, description="nights between trainings; the others go on with the last result"
    )


def wrong_targets(targets: Iterable[str]) -> list[str]:
    """What is no target of a rule, in words."""
    parts = [(t, *t.partition(":")[::2]) for t in targets]
    known = ("item", "category", "tag", "domain")
    wrong = [t for t, kind, value in parts if kind not in known or not value]
    return [f"'{t}' is no target; write item:ID, category:NAME, tag:NAME or domain:NAME" for t in wrong]


class Explore(Settings):
    """Places of lists that are drawn by chance; see ``pipelines.night.exploring``."""

    kind: Literal["epsilon", "thompson"] = Field("epsilon", description="alike, or by what may be clicked most")
    share: float = Field(0.05, gt=0, le=0.5, description="share of the places of a list, one at least, its last ones")
    pool: int = Field(100, ge=2, description="ranked items that are drawn from")


CUTOFFS = (10, 20)  # of lists that are judged
OF_LISTS = ("diversity", "novelty")  # what recommend.floors may promise of lists, beside shares of places


class Dials(Settings):
    """What counts for a place beside relevance, from 0 (nothing) to 1 (as much); see ``pipelines.night.dials``."""

    diversity: float = Field(0.0, ge=0, le=1, description="unlike the items above it")
    calibration: float = Field(0.0, ge=0, le=1, description="categories in the shares of the user's history")
    exposure: float = Field(0.0, ge=0, le=1, description="in few lists of the night before")
    popularity: float = Field(0.0, ge=0, le=1, description="liked by few")

    @property
    def turned(self) -> bool:
        """Whether anything counts."""
        return any(self.model_dump().values())


class External(Settings):
    """Lists of another team, vendor or model, which join as ``external_<name>``; see ``pipelines.external``."""

    path: str = Field(description="folder, file or glob of Parquet files below paths.raw, with the date in their names")
    columns: dict[Literal["user_id", "item_id", "score", "rank"], str] = Field(
        {}, description="our column -> theirs; score or rank puts the items of a user in order"
    )
    max_age_days: int = Field(1, ge=0, description="days before a night from which lists are still used")


class Team(Settings):
    """What each recommender adds to the others, every night, and what follows; see ``pipelines.credit``."""

    nights: int = Field(7, ge=1, description="in which a recommender has to add something, else it is to be retired")
    act: bool = Field(
        False, description="whether the next night leaves out who is to be retired, and lets in who has earned more"
    )


class Recommend(Settings):
    """What is served."""

    k: int = Field(20, ge=1, le=1000, description="list length")
    filter_seen: bool = True
    models: tuple[ModelName, ...] = Field(default=USUAL, description="recommenders of the night")
    serve: ModelName = Field(
        "hybrid", description="whose lists are recommendations; one of models, the first of them if hybrid is none"
    )
    settings: dict[str, dict[str, Any]] = Field(
        {}, description="recommender -> settings that are pinned; a search chooses the others"
    )
    search_days: int = Field(0, ge=0, description="nights between searches for settings; 0: only by `nightloom search`")
    half_life_days: float = Field(30.0, gt=0, description="an event's weight halves in this time")
    new_items: int = Field(1, ge=0, description="last places of a hybrid list kept for items that nobody has liked")
    ignored: float = Field(
        0.0, ge=0, description="standard deviations that a place shown without any reaction moves the item down"
    )
    explore: Explore | None = Field(
        None, description="places drawn by chance, with kind, share and pool; none by default"
    )
    dials: Dials | None = Field(
        None, description="what counts beside relevance, with what each setting would cost in eval_dials"
    )
    floors: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        {},
        description="domain:, category:, tag: or item: -> least share of all places; diversity, novelty -> least mean",
    )
    external: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], External] = Field(
        {}, description="name -> lists of somebody else, each a recommender beside models"
    )
    team: Team | None = Field(None, description="judge what each recommender adds, with nights and act; off by default")
    pool_domains: bool = Field(
        False, description="recommenders of each std_items.domain, and weights of the hybrid that domains share"
    )
    similar: int = Field(20, ge=1, le=1000, description="items like an item, by each basis of similar_items")
    rating_scale: float = Field(5.0, gt=0, description="highest rating; an event's weight is value / scale")
    event_weights: dict[str, float] = Field(
        {
            "view": 1.0,
            "click": 1.0,
            "play": 1.0,
            "rating": 1.0,
            "share": 2.0,
            "favorite": 3.0,
            "cart": 3.0,
            "purchase": 5.0,
            "skip": -1.0,
            "dislike": -1.0,
        },
        description="strength of each event; unlisted events count 1, negative ones are no positive feedback",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """Of models without the hybrid the first one serves, where none is named; external ones join the models."""
        if not isinstance(values, dict):
            return values
        models, external = values.get("models", list(USUAL)), values.get("external")
        if models and isinstance(models, list | tuple):
            if "serve" not in values and "hybrid" not in models:
                values = values | {"serve": models[0]}
            more = [DOMAINS] if values.get("pool_domains") is True else []
            more += [f"{EXTERNAL}{name}" for name in external] if isinstance(external, dict) else []
            values = values | ({"models": [*models, *(m for m in more if m not in models)]} if more else {})
        return values

    @property
    def judged_at(self) -> int:
        """The longest cutoff that lists are judged at."""
        return max([c for c in CUTOFFS if c <= self.k] or [min(CUTOFFS)])

    @model_validator(mode="after")
    def _served(self) -> "Recommend":
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models names one twice: {', '.join(self.models)}")
        unknown = [m for m in self.models if m.startswith(EXTERNAL) and m.removeprefix(EXTERNAL) not in self.external]
        if unknown:
            raise ValueError(f"models has {', '.join(unknown)}, of which there is no [recommend.external.NAME]")
        if self.serve not in self.models:
            raise ValueError(f"serve = '{self.serve}' is not in models ({', '.join(self.models)})")
        if self.new_items >= self.k:
            raise ValueError(f"new_items ({self.new_items}) must be smaller than k ({self.k})")
        if self.team and not blend_of(self.models):
            raise ValueError("team judges what recommenders add to the hybrid, which is not in models")
        if self.pool_domains and not blend_of(self.models):
            raise ValueError("pool_domains is about weights of the hybrid, which is not in models")
        if DOMAINS in self.models and not self.pool_domains:
            raise ValueError(f"models has {DOMAINS}, which comes with pool_domains = true")
        if not singles(self.models):
            raise ValueError("models has only the hybrid; name at least one recommender that it can combine")
        return self

    @model_validator(mode="after")
    def _promised(self) -> "Recommend":
        places = {target: share for target, share in self.floors.items() if target not in OF_LISTS}
        if wrong := wrong_targets(places):
            raise ValueError(f"floors: {wrong[0]}; or {' or '.join(OF_LISTS)}, of lists")
        if sum(places.values()) > 1:
            raise ValueError(f"floors add up to {sum(places.values()):g} of all places, which is more than all")
        return self


class Attribution(Settings):
    """What counts as feedback to the lists of a night; see ``pipelines.feedback``."""

    window_days: int = Field(1, ge=1, le=90, description="days from a night's lists on in which events count for them")
    assume_shown: bool = Field(False, description="all that was served was shown; for logs without impressions")


class Evaluation(Settings):
    """How lists are judged; see ``pipelines.evaluate``."""

    estimator: Literal["naive", "snips"] = Field(
        "naive", description="snips adds recall_snips and dcg_snips, in which a hit on what is rarely shown weighs more"
    )


class Rules(Settings):
    """Rules of the shop for lists; a target is ``item:ID``, ``category:NAME``, ``tag:NAME`` or ``domain:NAME``."""

    deny: tuple[str, ...] = Field((), description="targets that are never listed")
    allow: tuple[str, ...] = Field((), description="targets that alone may be listed; empty: all")
    at_most: dict[Literal["category", "tag", "domain"], int] = Field(
        {}, description="places of a list that items of one category, tag or domain may have"
    )
    pinned: dict[int, str] = Field(
        {}, description="place from 1 -> item_id that everybody has there, unless it is hidden"
    )

    @model_validator(mode="after")
    def _meant(self) -> "Rules":
        if problems := wrong_targets((*self.deny, *self.allow)):
            raise ValueError(problems[0])
        wrong = [f"{k} = {n}" for k, n in self.at_most.items() if n < 1]
        if wrong or any(place < 1 for place in self.pinned):
            raise ValueError(f"at_most and places of pinned are 1 or more, not {wrong or sorted(self.pinned)}")
        if len(set(self.pinned.values())) < len(self.pinned):
            raise ValueError(f"pinned names an item twice: {', '.join(self.pinned.values())}")
        return self


Outcome = Literal["clicked", "favourite", "purchased", "reactions", "seconds"]


class Arm(Settings):
    """What an arm of an experiment does otherwise; what it leaves out stays as in [recommend]."""

    serve: ModelName | None = None
    new_items: int | None = Field(None, ge=0)
    dials: Dials | None = None


class Experiment(Settings):
    """A comparison of two or more ways to serve, by what users do with the lists; see ``pipelines.experiment``."""

    arms: dict[str, Arm] = Field(description="name -> what it does otherwise; the first is the one to beat")
    shares: dict[str, float] = Field(
        {}, description="arm -> share of the users; alike by default, the rest is not in it"
    )
    unit: Literal["user", "segment"] = Field(
        "user", description="what falls into an arm as a whole; users without a segment go by themselves"
    )
    metric: Outcome = Field("clicked", description="column of feedback, a user and day")
    guardrails: tuple[Outcome, ...] = Field((), description="columns that must not surely fall")
    start: date = Field(description="first night whose lists are split")
    days: int = Field(28, ge=1, description="after which the first arm stays if nothing is sure")
    minimum_effect: float = Field(0.05, gt=0, description="worth finding, as a share of the first arm's mean")
    level: float = Field(0.05, gt=0, lt=1, description="chance to promote what is no better")
    salt: str = Field("", description="of the assignment; the experiment's name by default")

    @model_validator(mode="after")
    def _splits(self) -> "Experiment":
        unknown = sorted(self.shares.keys() - self.arms.keys())
        missing = sorted(self.arms.keys() - self.shares.keys()) if self.shares else []
        if len(self.arms) < 2:
            raise ValueError("arms needs two names at least, the first is the one to beat")
        if unknown or missing:
            raise ValueError(f"shares names no arm: {unknown}; arms without a share: {missing}")
        if self.shares and (min(self.shares.values()) <= 0 or sum(self.shares.values()) > 1 + 1e-9):
            raise ValueError(f"shares must be above 0 and add up to at most 1, not {sum(self.shares.values()):g}")
        if any(not re.fullmatch(r"[\w.-]+", name) for name in self.arms):
            raise ValueError("names of arms are letters, digits, '.', '_' and '-'")
        return self

    @property
    def share_of(self) -> dict[str, float]:
        """Arm -> share of the users."""
        return self.shares or dict.fromkeys(self.arms, 1 / len(self.arms))

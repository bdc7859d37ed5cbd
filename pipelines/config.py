"""The one configuration file: frozen settings, every problem reported at once.

Belongs here: what a user may set, its defaults and its checks. Does not: anything that reads data.
Stages receive the values that they need as arguments, not this object's internals.
"""

import hashlib
import os
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from encoders.base import MODALITIES, Modality, ModelChoice
from encoders.files import VECTOR_FILES

ENV_CONFIG = "NIGHTLOOM_CONFIG"
HYBRID = "hybrid"
ModelName = Literal[
    "popularity",
    "user_cf",
    "item_cf",
    "ease",
    "als",
    "graph",
    "lightgcn",
    "content",
    "multimodal",
    "sequential",
    "transfer",
    "hybrid",
]


class ConfigError(ValueError):
    """Every problem of a configuration, one a line.

    Args:
        source: the file they were found in.
        problems: what is wrong and what to do.
    """

    def __init__(self, source: str, problems: list[str]):
        self.problems = problems
        lines = "\n".join(f"  - {p}" for p in problems)
        super().__init__(f"{source}: {len(problems)} configuration problem(s)\n{lines}")


class Settings(BaseModel):
    """Base of all sections: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Paths(Settings):
    """Where raw data is read and tables are written. Relative paths start at the config file's folder."""

    raw: str = Field(description="folder or fsspec URI (s3://, gs://) with interactions/, items/, user_content/")
    data: Path = Field(description="local folder for the lake, caches and the Dagster home")
    allowed_uris: tuple[str, ...] = Field((), description="URI prefixes that media references outside raw may have")


class Source(Settings):
    """How one kind of raw file names its columns."""

    path: str = Field(description="folder or file below paths.raw")
    columns: dict[str, str] = Field({}, description="our column -> column in the files; unmapped ones keep our name")
    defaults: dict[str, str] = Field({}, description="our column -> value where the files have none")
    time_unit: Literal["auto", "iso", "s", "ms", "us"] = Field("auto", description="unit of numeric timestamps")
    delimiter: str = Field(",", min_length=1, max_length=1)
    list_separator: str = Field("|", min_length=1, description="splits lists in CSV cells (categories, tags, media)")


class Encoder(Settings):
    """Which model embeds a modality, and how; see ``encoders.base.ModelChoice``."""

    model: str = Field(description="built-in name, Hugging Face id, local folder, .npy or .parquet of vectors")
    revision: str | None = Field(None, description="hub commit, tag or branch")
    layer: int | None = Field(None, description="hidden layer that is pooled, 0 the embeddings, -1 the last")
    pooling: str | None = Field(None, description="instead of what the model's own files say")
    prompt: str | None = Field(None, description="instruction before each text")
    image: str = Field("efficientnet-lite0", description="model of a video's frames")
    audio: str = Field("musicnn", description="model of a video's sound track; empty for none")
    frames: int = Field(8, ge=1, le=256, description="frames sampled from a video")

    def choice(self) -> ModelChoice:
        """What ``encoders.catalogue.load`` takes."""
        return ModelChoice(**self.model_dump())

    @property
    def is_vectors(self) -> bool:
        """Whether the vectors are precomputed and belong to items, not to content."""
        return self.model.endswith(VECTOR_FILES)


class Aligner(Settings):
    """The shared space and its training."""

    kind: Literal["transformer", "attention", "gated", "mlp", "cca", "procrustes", "ridge"] = Field(
        "gated", description="the last three are found in closed form, without training"
    )
    dim: int = Field(128, ge=8, le=1024, description="length of fused vectors")
    layers: int = Field(1, ge=1, le=8)
    heads: int = Field(4, ge=1, le=16)
    steps: int = Field(400, ge=1, description="optimizer steps a night")
    batch_size: int = Field(256, ge=4)
    learning_rate: float = Field(1e-3, gt=0)
    modality_dropout: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="weight of losses in which items lack one modality, each in turn, unless they have no other",
    )
    history: int = Field(50, ge=1, description="most recent items that describe a user")
    seed: int = 0

    @model_validator(mode="after")
    def _divisible(self) -> "Aligner":
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        return self


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
        known = {
            "text": ("span_drop", "word_drop"),
            "image": ("rotate", "crop", "scale", "flip", "colour"),
            "audio": ("denoise", "speed", "pitch", "noise", "time_mask", "frequency_mask"),
        }
        wrong = [f"{m}: '{op}'" for m, names in known.items() for op in getattr(self, m) if op not in names]
        if wrong:
            raise ValueError(f"unknown augmentation {', '.join(wrong)}; known are {known}")
        return self


class Finetune(Settings):
    """Training the text encoder on the log; see ``encoders.finetune``. Off unless ``enabled``."""

    enabled: bool = False
    task: Literal["co_consumption", "labels"] = Field("co_consumption", description="labels are first categories")
    every_days: int = Field(7, ge=1, description="nights between trainings; the others go on with the last result")
    method: Literal["full", "adapter", "lora", "adalora"] = Field("lora", description="adapter is (IA)3")
    rank: int = Field(8, ge=1)
    train_layers: int = Field(2, ge=1, description="top layers that are trained, the others stay frozen")
    epochs: int = Field(5, ge=1)
    examples: int = Field(2048, ge=2, description="pairs or items of an epoch")
    batch_size: int = Field(32, ge=2)
    max_tokens: int = Field(64, ge=4, description="training cuts texts here; encoding does not")
    learning_rate: float | None = Field(None, gt=0, description="none chooses by method")
    patience: int = Field(2, ge=1, description="epochs without a better validation before it stops")
    seed: int = 0


class Recommend(Settings):
    """What is served."""

    k: int = Field(20, ge=1, le=1000, description="list length")
    filter_seen: bool = True
    models: tuple[ModelName, ...] = Field(get_args(ModelName), description="recommenders of the night")
    serve: ModelName = Field("hybrid", description="whose lists are recommendations; one of models")
    settings: dict[str, dict[str, float | int | str]] = Field(
        {}, description="recommender -> settings that are pinned; a search chooses the others"
    )
    search_days: int = Field(0, ge=0, description="nights between searches for settings; 0: only by `nightloom search`")
    half_life_days: float = Field(30.0, gt=0, description="an event's weight halves in this time")
    new_items: int = Field(1, ge=0, description="last places of a hybrid list kept for items that nobody has liked")
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
        },
        description="strength of each event; unlisted events count 1, negative ones are no positive feedback",
    )

    @model_validator(mode="after")
    def _served(self) -> "Recommend":
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models names one twice: {', '.join(self.models)}")
        if self.serve not in self.models:
            raise ValueError(f"serve = '{self.serve}' is not in models ({', '.join(self.models)})")
        if self.new_items >= self.k:
            raise ValueError(f"new_items ({self.new_items}) must be smaller than k ({self.k})")
        if set(self.models) == {HYBRID}:
            raise ValueError("models has only the hybrid; name at least one recommender that it can combine")
        return self


class Compute(Settings):
    """Where the work runs."""

    runner: str = Field("FnApiRunner", description="Beam runner, by the name that Beam knows it")
    runner_options: tuple[str, ...] = Field((), description="pipeline options passed to Beam as they are")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    shard_rows: int = Field(2048, ge=1, description="payloads or users of one Beam element")


class Config(Settings):
    """A whole configuration file."""

    paths: Paths
    start_date: date = Field(description="day of the first partition; earlier events are quarantined")
    end_date: date | None = Field(None, description="last day of a finished data set; leave out for a living one")
    timezone: str = "UTC"
    interactions: Source = Source(path="interactions")
    items: Source = Source(path="items")
    user_content: Source = Source(path="user_content")
    encoders: dict[Modality, Encoder] = {
        "text": Encoder(model="minilm"),
        "image": Encoder(model="efficientnet-lite0"),
        "audio": Encoder(model="musicnn"),
        "video": Encoder(model="frames"),
    }
    augment: Augment = Augment()
    finetune: Finetune = Finetune()
    aligner: Aligner = Aligner()
    recommend: Recommend = Recommend()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as e:
            raise ValueError(f"timezone '{self.timezone}' is not an IANA name such as Europe/Paris") from e
        if self.end_date and self.end_date < self.start_date:
            raise ValueError(f"end_date {self.end_date} is before start_date {self.start_date}")
        if not self.encoders:
            raise ValueError(f"encoders is empty; name a model for at least one of {', '.join(MODALITIES)}")
        return self

    def digest(self, *sections: str) -> str:
        """16 hex characters of the named sections (all but paths and compute when none is named)."""
        dump = self.model_dump(mode="json")
        chosen = sections or tuple(k for k in sorted(dump) if k not in ("paths", "compute"))
        return digest_of({k: dump[k] for k in chosen})


def digest_of(value: Any) -> str:
    """16 hex characters of a JSON-able value, independent of dict order."""
    import orjson

    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


ConfigFile = Annotated[Path, "TOML file"]


def config_path() -> ConfigFile:
    """File named by ``NIGHTLOOM_CONFIG``, else the demo configuration of this checkout."""
    return Path(os.environ.get(ENV_CONFIG) or Path(__file__).resolve().parent.parent / "nightloom.toml")


def load_config(path: ConfigFile) -> Config:
    """Read and check a configuration file's keys, types and ranges. Touches no data.

    Raises:
        ConfigError: with every problem.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise ConfigError(str(path), ["file does not exist; pass --config FILE or set NIGHTLOOM_CONFIG"]) from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
        raise ConfigError(str(path), [f"cannot be read as TOML: {e}"]) from e
    for name in ("interactions", "items", "user_content"):
        if isinstance(raw.get(name), dict):
            raw[name].setdefault("path", name)
    try:
        config = Config.model_validate(raw)
    except ValidationError as e:
        raise ConfigError(str(path), [_explain(x, raw) for x in e.errors()]) from e
    return _absolute(config, path.resolve().parent)


def _explain(error: Any, raw: dict[str, Any]) -> str:
    where = ".".join(str(x) for x in error["loc"]) or "file"
    if error["type"] == "extra_forbidden":
        section: Any = Config
        for part in error["loc"][:-1]:
            field = getattr(section, "model_fields", {}).get(part)
            section = field.annotation if field else section
        known = ", ".join(sorted(getattr(section, "model_fields", {})))
        return f"{where}: unknown key; known here: {known}"
    if error["type"] == "missing":
        return f"{where}: required, but not set"
    return f"{where} = {error['input']!r}: {error['msg']}" if error["loc"] else error["msg"]


def _absolute(config: Config, base: Path) -> Config:
    paths = config.paths
    raw = paths.raw if "://" in paths.raw else str((base / Path(paths.raw).expanduser()).resolve())
    data = (base / paths.data.expanduser()).resolve()
    encoders = {
        m: e.model_copy(
            update={
                k: str((base / Path(v).expanduser()).resolve())
                for k in ("model", "image", "audio")
                if (v := getattr(e, k)).startswith((".", "/", "~")) or v.endswith(VECTOR_FILES)
            }
        )
        for m, e in config.encoders.items()
    }
    return config.model_copy(
        update={"paths": paths.model_copy(update={"raw": raw, "data": data}), "encoders": encoders}
    )

"""The one configuration file: frozen settings, every problem reported at once.

Belongs here: the file, and what must hold between its sections. Does not: the sections (``sections``), reading data.
Stages receive the values that they need as arguments, not this object's internals.
"""

import hashlib
import os
import re
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, ValidationError, model_validator

from encoders.modalities import KINDS, Modality, known_modality
from encoders.settings import VECTOR_FILES, ModelChoice
from pipelines.beyond import Federate, Graph, Privacy
from pipelines.operation import Alerts, Compute, Guards, Records, Report
from pipelines.presets.merge import with_preset
from pipelines.raw.places import RawPlace
from pipelines.recommenders.registry import USUAL, entry
from pipelines.sections import (
    SOURCES,
    Aligner,
    Attribution,
    Augment,
    Dials,
    Evaluation,
    EventsSource,
    Experiment,
    Finetune,
    ItemsSource,
    Paths,
    Recommend,
    Rules,
    Settings,
    Source,
)

ENV_CONFIG = "NIGHTLOOM_CONFIG"


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


class Config(Settings):
    """A whole configuration file."""

    paths: Paths
    domain: str | None = Field(None, description="kind of house, whose preset is under what the file sets")
    start_date: date = Field(description="day of the first partition; earlier events are quarantined")
    end_date: date | None = Field(None, description="last day of a finished data set; leave out for a living one")
    timezone: str = "UTC"
    interactions: EventsSource = EventsSource(path="interactions")
    items: ItemsSource = ItemsSource(path="items")
    user_content: Source = Source(path="user_content")
    users: Source = Source(path="users")
    controls: Source = Source(path="controls")
    encoders: dict[Annotated[Modality, AfterValidator(known_modality)], ModelChoice] = {
        k.name: ModelChoice(k.default_encoder) for k in KINDS.values()
    }
    graphs: dict[str, Graph] = Field({}, description="name -> triples about items that make them alike")
    federate: Federate | None = Field(None, description="sites that share sums; off by default")
    privacy: Privacy | None = Field(None, description="noise on the sums that leave a site; none by default")
    feedback: Attribution = Attribution()
    experiments: dict[str, Experiment] = {}
    rules: Rules = Rules()
    guards: Guards = Guards()
    augment: Augment = Augment()
    finetune: Finetune = Finetune()
    aligner: Aligner = Aligner()
    recommend: Recommend = Recommend()
    evaluate: Evaluation = Evaluation()
    report: Report = Report()
    tracking: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="trackers that are told what each night has measured"
    )
    alerts: Alerts = Alerts()
    dagster: Records = Records()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as e:
            raise ValueError(f"timezone '{self.timezone}' is not an IANA name such as Europe/Paris") from e
        if self.end_date and self.end_date < self.start_date:
            raise ValueError(f"end_date {self.end_date} is before start_date {self.start_date}")
        if self.privacy and (self.federate is None or self.federate.role != "site"):
            raise ValueError('privacy is of the sums that leave a site; set [federate] with role = "site"')
        wrong_names = [n for n in self.graphs if not re.fullmatch(r"[a-z][a-z0-9_]*", n) or n in KINDS]
        if wrong_names:
            raise ValueError(f"graphs: {wrong_names} are no names; use a-z, 0-9 and '_', and no modality")
        for name, experiment in self.experiments.items():
            served = {a: arm.serve for a, arm in experiment.arms.items() if arm.serve}
            long = [a for a, arm in experiment.arms.items() if (arm.new_items or 0) >= self.recommend.k]
            if long:
                raise ValueError(f"experiments.{name}: new_items of {long} must be smaller than recommend.k")
            if not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(f"experiments: '{name}' is no name; use letters, digits, '.', '_' and '-'")
            wrong = {a: m for a, m in served.items() if m not in self.recommend.models}
            if wrong:
                raise ValueError(f"experiments.{name}: {wrong} serve what is not in recommend.models")
        self._apart()
        late = [place for place in self.rules.pinned if place > self.recommend.k]
        if late:
            raise ValueError(f"rules.pinned has places {late}, lists have {self.recommend.k} (recommend.k)")
        self._of_content()
        return self

    def _of_content(self) -> None:
        """What needs content cannot be had without."""
        lost = [m for m in self.recommend.models if entry(m).on_content]
        lost += ["dials.diversity"] if any(d.diversity for d in self.every_dials) else []
        lost += ["floors.diversity"] if "diversity" in self.recommend.floors else []
        if not self.encoders and (lost or self.augment.views or self.finetune.enabled):
            what = ", ".join([*lost, *(["augment"] if self.augment.views else []), *(["finetune"] if self.finetune.enabled else [])])  # noqa: E501 # fmt: skip
            raise ValueError(f"encoders is empty, so there is no content for {what}; leave them out or name an encoder")
        if self.items.fill and not self.encoders:
            raise ValueError("items.fill tells labels from content; encoders is empty, so that there is none")

    def _apart(self) -> None:
        """Two experiments that set the same thing for the same users say nothing of either."""
        setting: dict[str, str] = {}
        for name, experiment in self.experiments.items():
            for key in sorted({k for arm in experiment.arms.values() for k in arm.model_fields_set}):
                if setting.setdefault(key, name) != name:
                    raise ValueError(f"experiments {setting[key]} and {name} both set {key}; run one after the other")

    @model_validator(mode="before")
    @classmethod
    def _without_content(cls, values: Any) -> Any:
        """With ``encoders = {}`` the default recommenders are those that need no content."""
        if isinstance(values, dict) and values.get("encoders") == {}:
            recommend = values.get("recommend", {})
            if isinstance(recommend, dict) and "models" not in recommend:
                models = [n for n in USUAL if not entry(n).on_content]
                return values | {"recommend": recommend | {"models": models}}
        return values

    @property
    def every_dials(self) -> list[Dials]:
        """Dials of the lists, and of arms of experiments."""
        arms = [arm.dials for e in self.experiments.values() for arm in e.arms.values()]
        return [d for d in (self.recommend.dials, *arms) if d is not None]

    @property
    def raw_place(self) -> RawPlace:
        """Where raw data is, for workers."""
        embedded = self.paths.data / "cache" / "embedded"
        return RawPlace(self.paths.raw, self.paths.allowed_uris, str(embedded))

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
    try:
        raw = with_preset(raw)
    except ValueError as e:
        raise ConfigError(str(path), [str(e)]) from e
    for name in SOURCES:
        if isinstance(raw.get(name), dict):
            raw[name].setdefault("path", name)
    try:
        config = Config.model_validate(raw)
    except ValidationError as e:
        raise ConfigError(str(path), [_explain(x) for x in e.errors()]) from e
    return _absolute(config, path.resolve().parent)


def _fields(section: Any) -> dict[str, Any]:
    """Keys of a section; of a table of sections those of one of them."""
    arguments = get_args(section)
    section = arguments[-1] if arguments else section
    found: dict[str, Any] = getattr(section, "model_fields", None) or getattr(section, "__pydantic_fields__", {})
    return found


def _explain(error: Any) -> str:
    where = ".".join(str(x) for x in error["loc"]) or "file"
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        section: Any = Config
        for part in error["loc"][:-1]:
            field = _fields(section).get(part)
            section = field.annotation if field else section
        known = ", ".join(sorted(_fields(section)))
        return f"{where}: unknown key; known here: {known}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{where}: required, but not set"
    return f"{where} = {error['input']!r}: {error['msg']}" if error["loc"] else error["msg"]


def _choice_from(base: Path, choice: ModelChoice) -> ModelChoice:
    """The choice with its paths made absolute."""
    names = (choice.model, choice.image, choice.audio)
    model, image, audio = (
        str((base / Path(n).expanduser()).resolve()) if n.startswith((".", "/", "~")) or n.endswith(VECTOR_FILES) else n
        for n in names
    )
    return replace(choice, model=model, image=image, audio=audio)


def _absolute(config: Config, base: Path) -> Config:
    paths = config.paths
    raw = paths.raw if "://" in paths.raw else str((base / Path(paths.raw).expanduser()).resolve())
    data = (base / paths.data.expanduser()).resolve()
    encoders = {m: _choice_from(base, choice) for m, choice in config.encoders.items()}
    changed = {"paths": paths.model_copy(update={"raw": raw, "data": data}), "encoders": encoders}
    if config.federate and "://" not in config.federate.exchange:
        exchange = str((base / Path(config.federate.exchange).expanduser()).resolve())
        changed["federate"] = config.federate.model_copy(update={"exchange": exchange})
    return config.model_copy(update=changed)

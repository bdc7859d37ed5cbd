"""What a configuration points at: raw folders, mapped columns, encoders, runner, device, pinned settings.

Belongs here: checks that touch files or import code. Does not: keys, types and ranges (``config``).
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from encoders.catalogue import check_model
from pipelines.config import Config, ConfigError
from pipelines.lake.health import NUMBERS
from pipelines.recommenders.registry import RECOMMENDERS, problems_of, singles
from pipelines.sections import SOURCES


def verify(config: Config, source: str = "configuration") -> None:
    """Check what the configuration points at: raw folders, mapped columns, encoders, runner, device.

    Raises:
        ConfigError: with every problem, before any work is done.
    """
    import fsspec

    from pipelines.engine import beam as runtime
    from pipelines.raw.columns import RAW_COLUMNS

    problems = []
    try:
        fs, root = fsspec.core.url_to_fs(config.paths.raw)
        needed = [config.interactions.path, *([config.items.path] if config.encoders else [])]
        missing = [p for p in needed if not fs.glob(f"{root}/{p}") and not fs.exists(f"{root}/{p}")]
        problems += [
            f"paths.raw: no '{p}' in {config.paths.raw}; put the raw files there (`make demo` makes the demo's)"
            for p in missing
        ]
    except Exception as e:  # an unknown protocol or refused credentials: every kind is a wrong path here
        problems.append(f"paths.raw: cannot open {config.paths.raw}: {type(e).__name__}: {e}")
    problems += _check_exchange(config)
    for name in SOURCES:
        known = set(RAW_COLUMNS[name])
        settings = getattr(config, name)
        for key in sorted({*settings.columns, *settings.defaults} - known):
            problems.append(f"{name}.columns: '{key}' is not one of our columns ({', '.join(sorted(known))})")
    for modality, encoder in config.encoders.items():
        problems += [f"encoders.{modality}: {p}" for p in check_model(modality, encoder)]
    if config.privacy and find_spec("dp_accounting") is None:
        problems.append("privacy: dp-accounting is not installed here; pip install 'nightloom[privacy]'")
    absent = [t for t in config.tracking if find_spec(t) is None]
    problems += [f"tracking: '{t}' is not installed here; pip install {t}" for t in absent]
    strange = sorted(config.guards.numbers.keys() - NUMBERS.keys())
    problems += [f"guards.numbers: '{n}' is no number of a night; known are {', '.join(NUMBERS)}" for n in strange]
    problems += _check_settings(config.recommend.settings)
    problems += runtime.check(config.compute.runner, config.compute.device)
    if problems:
        raise ConfigError(source, problems)


def _check_exchange(config: Config) -> list[str]:
    """The folder or bucket that sites share cannot be listed."""
    if config.federate is None:
        return []
    from pipelines.federation.exchange import Exchange

    try:
        Exchange(config.federate.exchange).rounds()
    except Exception as e:  # an unknown protocol or refused credentials, as of paths.raw
        return [f"federate.exchange: cannot open {config.federate.exchange}: {type(e).__name__}: {e}"]
    return []


def _check_settings(pinned: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Pinned settings that a recommender does not know or take."""
    known, problems = singles(list(RECOMMENDERS)), []
    for name, settings in pinned.items():
        where = f"recommend.settings.{name}"
        if name not in known:
            problems.append(f"{where}: no recommender with settings; known here: {', '.join(known)}")
        else:
            problems += [f"{where}: {p}" for p in problems_of(name, settings)]
    return problems

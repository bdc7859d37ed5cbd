"""What every asset needs: the configuration, the lake, the one partitions definition, and the Dagster home.

Belongs here: resources and how failures become Dagster failures. Does not: assets, jobs.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from pipelines.config import Config, ConfigError, load_config
from pipelines.lake.schemas import SchemaError
from pipelines.raw.places import DataError
from pipelines.verify import verify

DEVICE_POOL = "device"  # its limit is set in dagster.yaml
IO_RETRIES, IO_WAIT_S = 2, 30


class Nightloom(dg.ConfigurableResource):
    """The configuration file of this code location, and the lake that it points at."""

    config_file: str

    def config(self) -> Config:
        """The configuration, read anew so that a run uses the file as it is now."""
        return load_config(Path(self.config_file))

    def verified(self) -> Config:
        """The configuration after everything that it points at was checked."""
        config = self.config()
        verify(config, self.config_file)
        return config


def partitions_of(config: Config) -> dg.DailyPartitionsDefinition:
    """The one daily partitions definition of all assets."""
    end = (config.end_date + timedelta(days=1)).isoformat() if config.end_date else None
    return dg.DailyPartitionsDefinition(
        start_date=config.start_date.isoformat(), end_date=end, timezone=config.timezone
    )


def day_of(context: dg.AssetExecutionContext) -> date:
    """The night's day."""
    return date.fromisoformat(context.partition_key)


def dagster_home(config: Config) -> Path:
    """Dagster's home below the data folder; the shipped ``dagster.yaml`` is put there once and then is the user's."""
    home = config.paths.data / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shipped = Path(__file__).resolve().parent.parent / "dagster.yaml"
    if shipped.is_file() and not (home / "dagster.yaml").exists():
        shutil.copyfile(shipped, home / "dagster.yaml")
    return home


@contextmanager
def failures_explained() -> Iterator[None]:
    """Retry what I/O may heal; stop at once at what it cannot: configuration and broken promises."""
    try:
        yield
    except (ConfigError, DataError, SchemaError) as e:
        raise dg.Failure(description=str(e), allow_retries=False) from e
    except (ConnectionError, TimeoutError, BlockingIOError) as e:
        logging.getLogger(__name__).warning("I/O failed, trying again in %d s: %s", IO_WAIT_S, e)
        raise dg.RetryRequested(max_retries=IO_RETRIES, seconds_to_wait=IO_WAIT_S) from e

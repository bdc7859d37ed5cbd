"""All definitions of the code location. Loading them imports neither torch nor Beam nor transformers."""

from pathlib import Path

import dagster as dg

from assets import steps
from assets.resources import Nightloom, partitions_of
from assets.schedules import build_job, build_schedule, failure_sensor, files_sensor, step_jobs
from pipelines.config import config_path, load_config


def build_defs(config_file: Path | None = None, hooks: frozenset[dg.HookDefinition] = frozenset()) -> dg.Definitions:
    """Definitions for one configuration file.

    Args:
        config_file: default: ``NIGHTLOOM_CONFIG``, else the demo's.
        hooks: hooks of the nightly job.

    Raises:
        ConfigError: the file cannot be used.
    """
    path = config_file or config_path()
    config = load_config(path)
    partitions = partitions_of(config)
    assets = steps.build(partitions, config)
    tags = {"nightloom/config": config.digest()}
    job = build_job(assets, tags, hooks)
    told = [failure_sensor(job, config)] if config.alerts.command or config.alerts.url else []
    return dg.Definitions(
        assets=[*steps.raw_specs(), *assets],
        jobs=[job, *step_jobs(assets, tags)],
        schedules=[build_schedule(job)],
        sensors=[files_sensor(job, config, partitions), *told],
        resources={"nightloom": Nightloom(config_file=str(path.resolve()))},
    )


defs = build_defs()

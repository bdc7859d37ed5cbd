"""What every asset needs: the Dagster home is the user's, failures are retried only where that may heal them."""

from pathlib import Path

import dagster as dg
import pytest

from assets.resources import IO_RETRIES, IO_WAIT_S, dagster_home, failures_explained, partitions_of
from pipelines.config import ConfigError, load_config
from pipelines.lake.schemas import SchemaError
from tests.shop import write_config


def test_the_users_dagster_yaml_is_left_alone(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, {"audio": "mfcc"}))
    home = dagster_home(config)
    assert home == tmp_path / "data" / "dagster"
    assert "max_concurrent_runs: 1" in (home / "dagster.yaml").read_text()
    (home / "dagster.yaml").write_text("# mine\n")
    dagster_home(config)
    assert (home / "dagster.yaml").read_text() == "# mine\n"


@pytest.mark.parametrize("error", [ConnectionError("gone"), TimeoutError("late"), BlockingIOError("busy")])
def test_io_errors_are_retried(error: Exception) -> None:
    with pytest.raises(dg.RetryRequested) as asked, failures_explained():
        raise error
    assert (asked.value.max_retries, asked.value.seconds_to_wait) == (IO_RETRIES, IO_WAIT_S) == (2, 30)


@pytest.mark.parametrize("error", [ConfigError("file", ["k is 0"]), SchemaError("keys repeat")])
def test_what_a_retry_cannot_heal_stops_at_once(error: Exception) -> None:
    with pytest.raises(dg.Failure) as failed, failures_explained():
        raise error
    assert failed.value.allow_retries is False
    assert str(error) in str(failed.value.description)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), failures_explained():
        raise ZeroDivisionError


def test_partitions_follow_the_configuration(tmp_path: Path) -> None:
    path = write_config(tmp_path, {"audio": "mfcc"})
    path.write_text('end_date = 2026-03-03\ntimezone = "Asia/Tokyo"\n' + path.read_text())
    found = partitions_of(load_config(path))
    assert found.get_partition_keys() == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert found.timezone == "Asia/Tokyo"

"""The command: refusals, failures, runs that a crash left open."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets.cli import main
from assets.runs import end_orphans
from tests.shop import FIRST, LAST


def test_run_left_open_by_a_crash_is_ended(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for tags in ({"nightloom/pid": "999999999", "nightloom/process_started": "1"}, {}):
            instance.create_run_for_job(job_def=_trivial_job(), tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert end_orphans(instance) == 1, "a run of the UI may still be alive"
        assert end_orphans(instance, everything=True) == 1
        assert not instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))


def _trivial_job() -> dg.JobDefinition:
    @dg.op
    def nothing() -> None: ...

    @dg.job
    def trivial() -> None:
        nothing()

    return trivial


def test_command_line_refuses_before_work(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(shop), "--date", str(FIRST - timedelta(days=1))]) == 2
    assert "no partition" in capsys.readouterr().err
    shop.write_text(shop.read_text().replace("k = 20", "k = 20\nspeed = 9"))
    assert main(["check", "--config", str(shop)]) == 2
    assert "recommend.speed: unknown key" in capsys.readouterr().err
    assert not (shop.parent / "data").exists()


def test_failed_night_says_why_and_exits_with_one(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import standardize

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(standardize, "standardize", full_disk)
    assert main(["run", "--config", str(shop), "--date", str(LAST)]) == 1
    error = capsys.readouterr().err
    assert "standardize" in error
    assert "No space left on device" in error

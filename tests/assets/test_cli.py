"""The command: refusals, failures, runs that a crash left open."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from assets.cli import main
from assets.resources import dagster_home
from assets.runs import _process_tags, end_orphans, forget_old_runs
from pipelines.config import load_config
from tests.shop import FIRST, LAST, REPO


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
    assert f"no night of {FIRST - timedelta(days=1)}: the first is that of {FIRST}" in capsys.readouterr().err
    tomorrow = date.today() + timedelta(days=2)
    assert main(["run", "--config", str(shop), "--date", str(tomorrow)]) == 2
    assert f"no night of {tomorrow}: that day has not ended in UTC; the latest night is" in capsys.readouterr().err
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


@pytest.mark.slow
def test_a_night_that_is_being_run_is_not_run_again(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = dagster_home(load_config(shop))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        tags = {"dagster/partition": str(FIRST), **_process_tags(os.getpid())}
        run = instance.create_run_for_job(job_def=_trivial_job(), tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert main(["run", "--config", str(shop), "--date", str(FIRST)]) == 1
        said = f"the night of {FIRST} is being run by process {os.getpid()}; wait until that has ended"
        assert said in capsys.readouterr().err
        assert not (shop.parent / "data" / "lake").exists()
        instance.delete_run(run.run_id)


@pytest.mark.slow
def test_an_interrupted_night_says_so_and_ends_with_130(shop: Path) -> None:
    command = [sys.executable, "-m", "assets.cli", "run", "--config", str(shop), "--date", str(FIRST)]
    interrupts: Any = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=interrupts,
        env=os.environ | {"PYTHONPATH": str(REPO)},
    )  # fmt: skip
    until = time.monotonic() + 60
    while not list(shop.parent.glob("data/lake/std_interactions/date=*")) and time.monotonic() < until:
        time.sleep(0.05)
    errors = ""
    for _ in range(5):  # Python loses a signal that comes while it cleans up a weak reference
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            errors = process.communicate(timeout=15)[1]
            break
    assert process.returncode == 130, errors
    assert "interrupted; nothing is half-published" in errors
    assert "Traceback" not in errors.split("Exception ignored")[0]


def test_old_runs_are_forgotten_and_young_ones_stay(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        done = _trivial_job().execute_in_process(instance=instance)
        open_run = instance.create_run_for_job(job_def=_trivial_job(), status=dg.DagsterRunStatus.STARTED)
        shard = tmp_path / "history" / "runs" / f"{done.run_id}.db"
        assert shard.is_file()
        assert forget_old_runs(instance, tmp_path, 0) == forget_old_runs(instance, tmp_path, 1) == 0
        old = datetime.now(UTC) + timedelta(days=3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("assets.runs.datetime", SimpleNamespace(now=lambda zone: old))
            assert forget_old_runs(instance, tmp_path, 2) == 1
        assert not shard.exists()
        assert [r.run_id for r in instance.get_runs()] == [open_run.run_id], "what still runs is kept"

"""Nights run from a terminal: the schedule's Dagster job in this process, its progress, and what a crash left open.

Belongs here: running the job on the instance that the UI shows, ending orphaned runs. Does not: the command line.
"""

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from assets.alerts import PID_TAG, alert, served_now, why_failed
from assets.arguments import INTERRUPTED
from assets.summary import summary_of
from pipelines.config import Config

if TYPE_CHECKING:
    import dagster as dg

START_TAG = "nightloom/process_started"
LOGGERS = ("encoders", "pipelines", "assets")


def run_nights(config: Config, path: Path, days: list[date], verbose: bool = False) -> int:
    """Run the nightly job for each day in order; stop at the first night that fails.

    Returns:
        Exit code of the command.
    """
    if wrong := _no_night(config, days):
        print(wrong, file=sys.stderr)
        return 2
    import dagster as dg

    from assets.definitions import build_defs
    from assets.resources import dagster_home
    from assets.schedules import NIGHTLY

    home = dagster_home(config)
    os.environ["DAGSTER_HOME"] = str(home)
    with dg.DagsterInstance.get() as instance, _progress(len(days), verbose) as bar:
        end_orphans(instance)
        forget_old_runs(instance, home, config.dagster.keep_days)
        job = build_defs(path, hooks=frozenset({_step_hook(bar)})).resolve_job_def(NIGHTLY)
        bar.total = len(days) * len(job.graph.nodes)
        for day in days:
            if other := _running(instance, day):
                bar.close()
                print(f"the night of {day} is being run by {other}; wait until that has ended", file=sys.stderr)
                return 1
            bar.set_description_str(f"night {day}")
            result = job.execute_in_process(
                partition_key=day.isoformat(),
                instance=instance,
                raise_on_error=False,
                tags=_process_tags(os.getpid()),
                run_config={"loggers": {"console": {"config": {"log_level": "INFO" if verbose else "CRITICAL"}}}},
            )
            if _interrupted(result):
                bar.close()
                print(f"night {day} was interrupted; nothing is half-published, run it again", file=sys.stderr)
                return INTERRUPTED
            if not result.success:
                bar.close()
                first, *more = why_failed(result.all_events)
                served = served_now(config, day)
                print("\n".join([f"night {day} failed: {first}", *(f"  {line}" for line in more)]), file=sys.stderr)
                print(f"  {served}", file=sys.stderr)
                alert(config, day, first, served)
                return 1
            bar.write(summary_of(config, day), file=sys.stdout)
    return 0


def _no_night(config: Config, days: list[date]) -> str:
    """Why the first of some days that is no night is none; empty where all are."""
    from assets.resources import partitions_of

    nights = partitions_of(config)
    wrong = next((d for d in days if not nights.has_partition_key(d.isoformat())), None)
    if wrong is None:
        return ""
    last = nights.get_last_partition_key()
    if wrong < config.start_date or last is None:
        return f"no night of {wrong}: the first is that of {config.start_date} (start_date)"
    if config.end_date and wrong > config.end_date:
        return f"no night of {wrong}: the last is that of {config.end_date} (end_date)"
    return f"no night of {wrong}: that day has not ended in {config.timezone}; the latest night is that of {last}"


def _running(instance: "dg.DagsterInstance", day: date) -> str:
    """Who is running a night, as far as Dagster knows; empty where nobody is."""
    import dagster as dg

    running = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
    tags = {"dagster/partition": day.isoformat()}
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=running, tags=tags)):
        pid = run.tags.get(PID_TAG)
        return f"process {pid}" if pid else f"Dagster (run {run.run_id[:8]})"
    return ""


def _interrupted(result: Any) -> bool:
    """Whether a signal has ended a run."""
    failed = [e.step_failure_data.error for e in result.all_events if e.is_step_failure]
    return any(e is not None and e.cls_name == "DagsterExecutionInterruptedError" for e in failed)


@contextmanager
def _progress(nights: int, verbose: bool) -> Iterator[Any]:
    """A bar over the steps of all nights, with what the stages log behind it; off a terminal a line a step."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    for noisy in ("apache_beam", "root", "transformers", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    terminal = sys.stderr.isatty()
    os.environ["TQDM_DISABLE"] = os.environ.get("TQDM_DISABLE", "0" if terminal else "1")  # of the stages' own bars
    bar = tqdm(total=nights, unit="step", disable=verbose or not terminal, dynamic_ncols=True, mininterval=0.2)
    handler = _BarHandler(bar)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
        if not verbose:
            logging.getLogger(name).addHandler(handler)
            logging.getLogger(name).propagate = False
    try:
        yield bar
    finally:
        bar.close()
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).propagate = True


class _BarHandler(logging.Handler):
    """Shows the latest message behind the bar, warnings above it."""

    def __init__(self, bar: Any):
        super().__init__()
        self.bar = bar

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.bar.write(f"warning: {record.getMessage()}", file=sys.stderr)
        else:
            self.bar.set_postfix_str(record.getMessage()[:70], refresh=True)  # nothing where the bar is off


def _step_hook(bar: Any) -> "dg.HookDefinition":
    import dagster as dg

    started = time.monotonic()

    @dg.success_hook(name="progress")
    def progress(context: dg.HookContext) -> None:
        bar.update(1)
        if bar.disable:
            print(f"{time.monotonic() - started:7.1f} s  {context.op.name} done", file=sys.stderr, flush=True)

    return progress


def _process_tags(pid: int) -> dict[str, str]:
    return {PID_TAG: str(pid), START_TAG: _process_start(pid)}


def _process_start(pid: int) -> str:
    """Start time of a process, so that a reused number is not taken for the old one; empty when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat[stat.rindex(")") + 2 :].split()[19]


def end_orphans(instance: "dg.DagsterInstance", everything: bool = False) -> int:
    """Fail runs that a crash left open, so that they do not block the queue for ever.

    Args:
        instance: where runs are recorded.
        everything: also runs of the UI's daemon; only when no Dagster process is alive.

    Returns:
        Number of runs that were ended.
    """
    import dagster as dg

    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]
    ended = 0
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=statuses)):
        pid = run.tags.get(PID_TAG)
        dead = _process_start(int(pid)) != run.tags.get(START_TAG) if pid else everything
        if dead:
            instance.report_run_failed(
                run, "the process that ran it is gone; nothing of it is half-published, run the night again"
            )
            ended += 1
    _free_pools(instance)
    return ended


def forget_old_runs(instance: "dg.DagsterInstance", home: Path, keep_days: int) -> int:
    """Let Dagster forget finished runs that are older than some days, with their events and logs; 0 days forget none.

    Assets no longer show the nights of these runs as materialized. Tables stay.

    Returns:
        Number of runs.
    """
    import dagster as dg

    if not keep_days:
        return 0
    over = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    before = datetime.now(UTC) - timedelta(days=keep_days)
    old = instance.get_runs(filters=dg.RunsFilter(statuses=over, created_before=before))
    for run in old:
        instance.delete_run(run.run_id)
        (home / "history" / "runs" / f"{run.run_id}.db").unlink(missing_ok=True)
        shutil.rmtree(home / "storage" / run.run_id, ignore_errors=True)
    return len(old)


def _free_pools(instance: "dg.DagsterInstance") -> None:
    """Give back pool slots that finished runs still hold; a run killed inside a step would keep the device for ever."""
    storage = instance.event_log_storage
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        for run_id in {*info.active_run_ids, *info.pending_run_ids}:
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                storage.free_concurrency_slots_for_run(run_id)

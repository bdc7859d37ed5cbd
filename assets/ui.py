"""Dagster's UI with what belongs to it: its daemon and code servers, and the pages of nights served beside it.

Belongs here: starting them, ending all of them together. Does not: the command line (``cli``), what they show.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg

from assets.resources import dagster_home
from assets.runs import end_orphans, forget_old_runs
from pipelines.config import Config
from pipelines.lake.storage import Lake

PATIENCE_S = 20.0  # until what does not end is killed
PR_SET_PDEATHSIG = 1
LOCAL = ("127.0.0.1", "localhost")


def serve_ui(config: Config, port: int) -> int:
    """Run Dagster on 127.0.0.1 until it ends, or this process is told to.

    Returns:
        Exit code of the command: 0 also where a signal has ended it.
    """
    home = dagster_home(config)
    os.environ |= {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
    with (home / ".ui.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Dagster already runs on {home}", file=sys.stderr)
            return 1
        with dg.DagsterInstance.get() as instance:
            ended = end_orphans(instance, everything=True)
            forget_old_runs(instance, home, config.dagster.keep_days)
        if ended:
            print(f"ended {ended} run(s) that a crash had left open", file=sys.stderr)
        workspace = Path(__file__).resolve().parent.parent / "workspace.yaml"
        dagster = str(Path(sys.executable).parent / "dagster")
        command = [dagster, "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
        return _until_told([command, *_pages(config)], lock.fileno(), workspace.parent)


def _pages(config: Config) -> list[list[str]]:
    """The command that serves the pages of nights where ``report.url`` says, if that is here."""
    url, folder = urlsplit(config.report.url), Lake.of(config).root / "reports"
    if url.hostname not in LOCAL:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    where = ["--bind", "127.0.0.1", "--directory", str(folder)]
    return [[sys.executable, "-m", "http.server", str(url.port or 80), *where]]


def _until_told(commands: list[list[str]], lock: int, folder: Path) -> int:
    """Run commands until the first one ends or a signal comes, then end all that they have started."""
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a script has started us with SIGINT ignored
        signal.signal(number, lambda got, _: told.append(got))
    running = [_started(command, lock, folder, quiet=n > 0) for n, command in enumerate(commands)]
    while not told and running[0].poll() is None:
        time.sleep(0.2)
    code = running[0].poll()
    for process in running:
        _end(process)
    return 0 if told else int(code or 0)


def _started(command: list[str], lock: int, folder: Path, quiet: bool) -> "subprocess.Popen[bytes]":
    """A command in a session of its own, which holds the lock too and ends where this process is killed."""
    out = subprocess.DEVNULL if quiet else None
    return subprocess.Popen(  # noqa: S603, our own commands
        command, cwd=folder, start_new_session=True, pass_fds=(lock,), preexec_fn=_end_with_us, stdout=out, stderr=out
    )


def _end_with_us() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all of its session: politely, then surely."""
    for number, patience in ((signal.SIGINT, PATIENCE_S), (signal.SIGKILL, 5.0)):
        if not _tell_all(process.pid, number):
            return
        until = time.monotonic() + patience
        while time.monotonic() < until:
            process.poll()
            if not _tell_all(process.pid, 0):
                return
            time.sleep(0.1)


def _tell_all(group: int, number: int) -> bool:
    """Send a signal to a process group; whether it still exists."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True

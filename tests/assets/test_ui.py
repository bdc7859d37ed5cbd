"""The UI's processes: started together, ended together."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.shop import REPO

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def answers(url: str, seconds: float) -> bytes:
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310, our own address
                return bytes(response.read())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


def processes_of(home: Path) -> list[int]:
    """Processes whose Dagster home is here."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"DAGSTER_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_the_ui_serves_pages_and_ends_with_all_that_it_started(shop: Path) -> None:
    """Started as `nightloom ui &` in a script does it: with SIGINT ignored."""
    port, pages = free_port(), free_port()
    shop.write_text(shop.read_text() + f'\n[report]\nurl = "http://127.0.0.1:{pages}"\n')
    folder = shop.parent / "data" / "lake" / "reports" / "date=2026-03-01"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("the page")
    command = [sys.executable, "-m", "assets.cli", "ui", "--config", str(shop), "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), env=os.environ | {"PYTHONPATH": str(REPO)},
    )  # fmt: skip
    try:
        assert answers(f"http://127.0.0.1:{pages}/date=2026-03-01/index.html", 60) == b"the page"
        assert b"dagster" in answers(f"http://127.0.0.1:{port}/server_info", 120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        until = time.monotonic() + 10
        while processes_of(shop.parent / "data" / "dagster") and time.monotonic() < until:
            time.sleep(0.2)
        assert processes_of(shop.parent / "data" / "dagster") == []
    finally:
        process.kill()

"""Who is told when a night fails, and what."""

import json
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.alerts import alert
from assets.cli import main
from assets.definitions import build_defs
from pipelines.config import load_config
from pipelines.operation import Alerts
from tests.shop import FIRST

WHY = "step standardize: this must not work"


@pytest.fixture
def told() -> Iterator[tuple[str, list[Any]]]:
    """Address of a server, and the messages that it got."""
    messages: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", messages
    server.shutdown()


def with_alerts(shop: Path, url: str, command: str = "") -> None:
    shop.write_text(shop.read_text() + f'\n[alerts]\nurl = "{url}"\ncommand = "{command}"\n')


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nights whose first step fails."""

    def fail(*_: Any) -> Iterator[Any]:
        raise RuntimeError("this must not work")

    monkeypatch.setattr("pipelines.standardize.standardize", fail)


@pytest.mark.slow
@pytest.mark.usefixtures("broken")
def test_a_failed_night_is_told_to_the_command_and_the_address(shop: Path, told: Any, tmp_path: Path) -> None:
    url, messages = told
    with_alerts(shop, url, f"tee {tmp_path / 'message.json'}")
    assert main(["run", "--config", str(shop), "--date", str(FIRST)]) == 1
    (message,) = messages
    assert message["night"] == str(FIRST)
    assert "this must not work" in message["why"]
    assert message["why"].startswith("step standardize: ")
    assert message["served"] == "no earlier night has lists to serve"
    assert json.loads((tmp_path / "message.json").read_text()) == message


def test_an_alert_that_fails_is_a_warning(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_alerts(shop, "http://127.0.0.1:1/nobody", "false")
    alert(load_config(shop), FIRST, "why", "served")
    assert "alerts.command did not take the message" in caplog.text
    assert "alerts.url did not take the message" in caplog.text
    for command in ("   ", "'"):
        caplog.clear()
        config = load_config(shop)
        alert(
            config.model_copy(update={"alerts": Alerts(command=command, url="http://127.0.0.1 1/")}), FIRST, "why", ""
        )
        assert caplog.text.count("did not take the message") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("broken")
def test_dagsters_own_runs_are_told_by_a_sensor_and_those_of_the_command_line_are_not(shop: Path, told: Any) -> None:
    url, messages = told
    assert [s.name for s in build_defs(shop).sensors or []] == ["files_are_there"]
    with_alerts(shop, url)
    defs = build_defs(shop)
    sensor: Any = next(s for s in defs.sensors or [] if s.name == "tell_of_failures")
    job = defs.resolve_job_def("nightly")
    with dg.DagsterInstance.ephemeral() as instance:
        for tags in ({}, {"nightloom/pid": "1"}):
            result = job.execute_in_process(
                partition_key=str(FIRST), instance=instance, raise_on_error=False, tags=tags
            )
            (event,) = [e for e in result.all_events if e.event_type_value == "PIPELINE_FAILURE"]
            context = dg.build_run_status_sensor_context(
                sensor_name=sensor.name, dagster_event=event, dagster_instance=instance, dagster_run=result.dagster_run
            )
            sensor(context.for_run_failure())
    (message,) = messages
    assert message["night"] == str(FIRST)
    assert "this must not work" in message["why"]


def test_a_night_starts_when_its_file_is_there(tmp_path: Path) -> None:
    day = date.today() - timedelta(days=1)
    config = tmp_path / "nightloom.toml"
    config.write_text(f'encoders = {{}}\nstart_date = {day}\n[paths]\nraw = "raw"\ndata = "data"\n')
    (tmp_path / "raw" / "interactions").mkdir(parents=True)
    (tmp_path / "raw" / "interactions" / f"{day - timedelta(days=1)}.csv").write_text("a\n")
    sensor: Any = next(s for s in build_defs(config).sensors or [] if s.name == "files_are_there")
    (skipped,) = list(sensor(dg.build_sensor_context()))
    assert skipped.skip_message == f"no file of interactions has {day} in its name"
    (tmp_path / "raw" / "interactions" / f"{day:%Y%m%d}.csv").write_text("a\n")
    (request,) = list(sensor(dg.build_sensor_context()))
    assert (request.partition_key, request.run_key) == (str(day), str(day))

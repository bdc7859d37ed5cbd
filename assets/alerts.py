"""What is told to people when a night fails: why, whose lists are served, to a command, a web address, or both.

Belongs here: the message, sending it. Does not: when a night has failed (``runs``, ``schedules``).
"""

import json
import logging
import re
import shlex
import subprocess
import urllib.request
from collections.abc import Sequence
from datetime import date
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from pipelines.config import Config
from pipelines.lake.health import good_nights
from pipelines.lake.storage import Lake

if TYPE_CHECKING:
    import dagster as dg

log = logging.getLogger(__name__)

PATIENCE_S = 30
PID_TAG = "nightloom/pid"  # of runs of the command line, which tells of its own failures


def alert(config: Config, night: date, why: str, served: str) -> None:
    """Tell that a night has failed, as JSON: night, why, served, tables. What goes wrong with it is a warning.

    Args:
        config: of the night; ``[alerts]`` says where to.
        night: its day.
        why: first line of the failure.
        served: whose lists are served.
    """
    tables = str(Lake.of(config).root)
    message = json.dumps({"night": night.isoformat(), "why": why, "served": served, "tables": tables}).encode()
    if config.alerts.command:
        try:
            words = shlex.split(config.alerts.command)
            subprocess.run(words, input=message, timeout=PATIENCE_S, check=True)  # noqa: S603, the user's own command
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as e:
            log.warning("alerts.command did not take the message: %s", e)
    if config.alerts.url:
        request = urllib.request.Request(  # noqa: S310, checked by the configuration
            config.alerts.url, message, {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request, timeout=PATIENCE_S).close()  # noqa: S310
        except (OSError, HTTPException, ValueError) as e:
            log.warning("alerts.url did not take the message: %s", e)


def served_now(config: Config, day: date) -> str:
    """Whose lists are served after a night that failed."""
    lake = Lake.of(config)
    good = good_nights(lake, day)
    if not good:
        return "no earlier night has lists to serve"
    again = good[-1] < day and lake.manifest("recommendations", day) is not None
    return f"the lists of {good[-1]} are {'served again' if again else 'the latest'}"


def why_failed(events: "Sequence[dg.DagsterEvent]") -> list[str]:
    """Messages of the failed steps and checks, innermost cause last; a check's echo in its step is left out."""
    lines, failed = [], {e.step_key for e in events if _is_failed_check(e)}
    for event in events:
        if event.is_step_failure and event.step_key not in failed:
            error, seen = event.step_failure_data.error, []
            while error is not None:
                seen.append(re.sub(r"^[\w.]*\.(Failure|DataError|ConfigError): ", "", error.message.strip()))
                error = error.cause
            lines.append(f"step {event.step_key}: " + "\n    caused by: ".join(dict.fromkeys(seen)))
        elif _is_failed_check(event):
            check = event.asset_check_evaluation_data
            problems = check.metadata.get("problems")
            found = problems.value if problems else "failed"
            lines.append(f"check {check.check_name} of {check.asset_key.to_user_string()}: {found}")
    return lines or ["no step reported why; see the run in the UI"]


def _is_failed_check(event: Any) -> bool:
    is_check = event.event_type_value == "ASSET_CHECK_EVALUATION"
    if not is_check:
        return False
    check = event.asset_check_evaluation_data
    return not check.passed and check.severity.value == "ERROR"

"""What the command line takes: subcommands and their options.

Belongs here: names, types, help. Does not: what a command does (``cli``).
"""

import argparse
from datetime import date
from typing import Any

from pipelines.config import ENV_CONFIG

INTERRUPTED = 130  # exit code, as shells have it for Ctrl-C
Options = dict[str, dict[str, Any]]
NIGHT: Options = {"--date": {"type": date.fromisoformat, "required": True, "help": "the night's day, YYYY-MM-DD"}}
LATEST: Options = {"--date": {"type": date.fromisoformat, "help": "the night's day, YYYY-MM-DD; the latest by default"}}
JSON: Options = {"--json": {"action": "store_true", "help": "print what was found as one JSON object"}}
PICTURES: Options = {"--pictures": {"action": "store_true", "help": "with pictures, in a terminal of many colours"}}

ASKED: dict[str, tuple[str, Options]] = {
    "explain": (
        "say why a user's list is what it is: history, list, reasons, wishes",
        {"user": {"help": "user_id"}, **LATEST, **JSON, **PICTURES},
    ),
    "similar": (
        "say what is like an item, by each basis",
        {"item": {"help": "item_id, or a part of its title"}, **LATEST, **JSON, **PICTURES},
    ),
    "history": ("say how nights went: accuracy, events, content encoded, time, decisions", JSON),
    "compare": (
        "say which lists differ between two nights, and why: data, models, settings",
        {
            "before": {"type": date.fromisoformat, "help": "a night's day, YYYY-MM-DD"},
            "after": {"type": date.fromisoformat, "help": "a later one"},
            **JSON,
        },
    ),
}
COMMANDS: dict[str, tuple[str, Options]] = {
    "run": ("run one night", NIGHT),
    "backfill": (
        "run a range of nights in order",
        {
            "--from": {"dest": "first", "type": date.fromisoformat, "required": True, "help": "first day"},
            "--to": {"dest": "last", "type": date.fromisoformat, "required": True, "help": "last day"},
        },
    ),
    "search": ("search settings of the recommenders on a night that was run; they serve until the next search", NIGHT),
    "power": (
        "say how many days an experiment's effect needs, by the feedback of the last nights",
        {**NIGHT, "--experiment": {"required": True, "help": "its name in the configuration"}},
    ),
    "check": (
        "check the configuration and look at the data: what is understood, lost, known, and what it costs",
        {**JSON, "--deep": {"action": "store_true", "help": "also hash every raw file that was read before"}},
    ),
    "accept": ("run a night that was stopped for unusual numbers, after you have looked at them", NIGHT),
    **ASKED,
    "report": (
        "say where the page of a night is",
        {**LATEST, "--open": {"action": "store_true", "help": "open it in the browser"}},
    ),
    "hub": (
        "add up what sites have left at the exchange, and open a round; run it after their nights",
        {"--date": {"type": date.fromisoformat, "help": "the sites' night, YYYY-MM-DD; yesterday by default"}},
    ),
    "ui": (
        "start Dagster on 127.0.0.1, after ending runs that a crash left open",
        {"--port": {"type": int, "default": 3000}},
    ),
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of `nightloom`."""
    parser = argparse.ArgumentParser(
        prog="nightloom", description="Nightly multimodal recommendation features and lists."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (text, options) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--config", help=f"TOML file (default: ${ENV_CONFIG}, else the demo's nightloom.toml)")
        sub.add_argument("--verbose", action="store_true", help="log every message instead of a progress bar")
        for option, how in options.items():
            sub.add_argument(option, **how)
    _add_import(commands)
    _add_init(commands)
    return parser


def _add_import(commands: Any) -> None:
    text = "write a raw folder and its configuration from a public data set, as published"
    imports = commands.add_parser("import", help=text, description=text)
    imports.add_argument("name", help="data set; without a match all are listed")
    imports.add_argument("source", help="folder of the published files")
    imports.add_argument("raw", help="raw folder to write")


def _add_init(commands: Any) -> None:
    init = commands.add_parser("init", help="write a commented configuration for a folder of raw data")
    init.add_argument("folder", help="the raw data: a folder or an fsspec URI")
    init.add_argument("--out", default="nightloom.toml", help="file to write (default: nightloom.toml here)")
    init.add_argument("--data", default="data", help="folder for the lake and caches, relative to the file")
    for kind in ("interactions", "items", "user-content"):
        init.add_argument(f"--{kind}", metavar="PATH", help=f"where the {kind} are, below the folder")
    for column in ("user", "item", "event", "event-at", "value", "title"):
        init.add_argument(f"--{column}", metavar="COLUMN", help=f"the files' column for {column}")
    init.add_argument("--timezone", default="UTC", help="IANA name, for times without a zone")
    init.add_argument("--start-date", type=date.fromisoformat, help="day of the first night")
    init.add_argument("--force", action="store_true", help="overwrite the file")

"""The headless command: a night, a range of nights, a check of the configuration, the UI.

Exit code 0: every step succeeded; 1: a night failed; 2: the configuration or the command line is wrong, nothing was
run. Belongs here: the command line. Does not: how a night is run (``runs``).
"""

import argparse
import json
import logging
import os
import sys
import webbrowser
from datetime import date, timedelta
from pathlib import Path

from assets.runs import run_nights
from pipelines.config import ENV_CONFIG, Config, ConfigError, config_path, load_config
from pipelines.sections import SOURCES
from pipelines.verify import verify


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return the exit code."""
    args = _parser().parse_args(argv)
    if args.command in ("init", "import"):
        return {"init": _init, "import": _import}[args.command](args)
    try:
        path = Path(args.config).resolve() if args.config else config_path()
        config = load_config(path)
        os.environ[ENV_CONFIG] = str(path)
        if args.command not in ("ui", "report"):
            verify(config, str(path))
    except ConfigError as e:
        print(e, file=sys.stderr)
        return 2
    commands = {"run": _run, "backfill": _backfill, "search": _search, "check": _check, "ui": _ui}
    commands |= {"accept": _accept, "power": _power, "report": _report}
    return commands[args.command](args, config, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nightloom", description="Nightly multimodal recommendation features and lists."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "run": "run one night",
        "backfill": "run a range of nights in order",
        "search": "search settings of the recommenders on a night that was run; they serve until the next search",
        "power": "say how many days an experiment's effect needs, by the feedback of the last nights",
        "check": "check the configuration and look at the data: what is understood, lost, known, and what it costs",
        "accept": "run a night that was stopped for unusual numbers, after you have looked at them",
        "report": "say where the page of a night is, the latest by default",
        "ui": "start Dagster on 127.0.0.1, after ending runs that a crash left open",
    }.items():
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--config", help=f"TOML file (default: ${ENV_CONFIG}, else the demo's nightloom.toml)")
        sub.add_argument("--verbose", action="store_true", help="log every message instead of a progress bar")
        if name in ("run", "search", "accept", "power"):
            sub.add_argument("--date", type=date.fromisoformat, required=True, help="the night's day, YYYY-MM-DD")
        if name == "backfill":
            sub.add_argument("--from", dest="first", type=date.fromisoformat, required=True, help="first day")
            sub.add_argument("--to", dest="last", type=date.fromisoformat, required=True, help="last day")
        if name == "report":
            sub.add_argument(
                "--date", type=date.fromisoformat, help="the night's day, YYYY-MM-DD; the latest by default"
            )
            sub.add_argument("--open", action="store_true", help="open it in the browser")
        if name == "power":
            sub.add_argument("--experiment", required=True, help="its name in the configuration")
        if name == "check":
            sub.add_argument("--json", action="store_true", help="print what was found as one JSON object")
            sub.add_argument("--deep", action="store_true", help="also hash every raw file that was read before")
        if name == "ui":
            sub.add_argument("--port", type=int, default=3000)
    text = "write a raw folder and its configuration from a public data set, as published"
    imports = commands.add_parser("import", help=text, description=text)
    imports.add_argument("name", help="data set; without a match all are listed")
    imports.add_argument("source", help="folder of the published files")
    imports.add_argument("raw", help="raw folder to write")
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
    return parser


ANSWERS = {
    "user": "user_id",
    "item": "item_id",
    "event": "event",
    "event_at": "event_at",
    "value": "value",
    "title": "title",
}


def _init(args: argparse.Namespace) -> int:
    """Write a configuration and print it; exit code 2 where nothing can be proposed."""
    logging.getLogger().setLevel(logging.ERROR)
    from pipelines.propose import propose
    from pipelines.raw.meaning import Answers

    out = Path(args.out)
    if out.exists() and not args.force:
        print(f"{out} exists; --force overwrites it, --out names another file", file=sys.stderr)
        return 2
    raw = args.folder if "://" in args.folder else str(Path(args.folder).resolve())
    paths = {k: getattr(args, k) for k in ("interactions", "items", "user_content") if getattr(args, k)}
    columns = {ours: getattr(args, flag) for flag, ours in ANSWERS.items() if getattr(args, flag)}
    try:
        text = propose(raw, args.data, Answers(paths, columns, args.timezone, args.start_date))
    except ValueError as e:
        print(e, file=sys.stderr)
        return 2
    out.write_text(text)
    print(text)
    print(f"wrote {out}; next: nightloom check --config {out}", file=sys.stderr)
    return 0


def _import(args: argparse.Namespace) -> int:
    """Import a data set and say what was written; exit code 2 where it cannot be read."""
    from pipelines.raw.importers.base import DataSetError
    from pipelines.raw.importers.registry import IMPORTERS, import_set

    try:
        config, rows = import_set(args.name, Path(args.source), Path(args.raw))
    except DataSetError as e:
        print(e, file=sys.stderr)
        known = IMPORTERS.values() if args.name not in IMPORTERS else [IMPORTERS[args.name]]
        print("\n".join(f"  {i.name:14s} {i.what}: {i.files}" for i in known), file=sys.stderr)
        return 2
    print("\n".join(f"{kind}: {n:,} rows" for kind, n in rows.items()))
    print(f"wrote {config}; next: nightloom check --config {config}")
    return 0


def _run(args: argparse.Namespace, config: Config, path: Path) -> int:
    return run_nights(config, path, [args.date], args.verbose)


def _backfill(args: argparse.Namespace, config: Config, path: Path) -> int:
    days = [args.first + timedelta(days=n) for n in range((args.last - args.first).days + 1)]
    if not days:
        print(f"--from {args.first} is after --to {args.last}", file=sys.stderr)
        return 2
    return run_nights(config, path, days, args.verbose)


def _accept(args: argparse.Namespace, config: Config, path: Path) -> int:
    """Accept what is out of range on a night, and run it."""
    from assets.resources import lake_of
    from pipelines.lake.health import accept, is_carried, said
    from pipelines.lake.storage import StorageError

    lake = lake_of(config)
    try:
        rows = accept(config, lake, args.date)
    except StorageError as e:
        if lake.manifest("recommendations", args.date) and is_carried(lake, args.date):
            why = lake.read("recommendations", args.date, ["carried_why"])["carried_why"][0].as_py()
            print(f"what stopped the night is no number to accept, and says what to do:\n{why}", file=sys.stderr)
        else:
            print(f"{e}\nthere is nothing to accept before a night was run", file=sys.stderr)
        return 1
    for row in rows:
        print(f"accepted {said(row)}")
    if not rows:
        print(f"all numbers of {args.date} are in their usual range; nothing to accept", file=sys.stderr)
        return 1
    return run_nights(config, path, [args.date], args.verbose)


def _power(args: argparse.Namespace, config: Config, path: Path) -> int:
    """Print how many days an experiment needs; exit code 2 where there is no such experiment."""
    from assets.resources import lake_of
    from pipelines.experiment import planned
    from pipelines.lake.storage import StorageError

    if args.experiment not in config.experiments:
        known = ", ".join(config.experiments) or "none"
        print(f"no [experiments.{args.experiment}] in {path}; there are: {known}", file=sys.stderr)
        return 2
    try:
        found = planned(config, lake_of(config), args.date, args.experiment)
    except StorageError as e:
        print(e, file=sys.stderr)
        return 1
    plan = config.experiments[args.experiment]
    print(f"{plan.metric}: {found.mean:.4f} a user and day, of {found.nights} nights with feedback up to {args.date}")
    print("users: " + ", ".join(f"{a} {n:.0f}" for a, n in found.users.items()))
    wanted = f"an effect of {plan.minimum_effect:.1%}"
    if found.days is None:
        print(f"{wanted} is not found with 80% within a year; it needs more users, or has to be larger")
    else:
        late = f"; experiments.{args.experiment}.days is {plan.days}" if found.days > plan.days else ""
        print(f"{wanted} is found with 80% in {found.days} days{late}")
    return 0


def _search(args: argparse.Namespace, config: Config, path: Path) -> int:
    from assets.resources import lake_of
    from pipelines.lake.cards import load_card
    from pipelines.lake.storage import StorageError
    from pipelines.search import search

    lake = lake_of(config)
    try:
        list(search(config, lake, args.date, now=True, progress=lambda text: print(text, file=sys.stderr)))
    except StorageError as e:
        print(f"{e}\nrun the night first: nightloom run --date {args.date}", file=sys.stderr)
        return 1
    card = load_card(lake, "settings", args.date)
    for name, trials in sorted(card["tried"].items()):
        for trial in sorted(trials, key=lambda t: -t["ndcg"]):
            settings = {k: v for k, v in trial.items() if k != "ndcg"}
            mark = "*" if settings == card["settings"][name] else " "
            text = ", ".join(f"{k} = {v}" for k, v in settings.items()) or "defaults"
            print(f"{mark} {name:12s} NDCG@{config.recommend.k} {trial['ndcg']:.4f}  {text}")
    print(f"{card['users']} validation users; * serves from the night of {args.date} on")
    return 0


def _check(args: argparse.Namespace, config: Config, path: Path) -> int:
    """Look at the data; exit code 1 where a night would stop."""
    logging.getLogger().setLevel(logging.ERROR)  # Beam says at its import what it lacks for other runners
    from rich.console import Console

    from assets.printed import print_survey
    from pipelines.survey import survey

    found = survey(config)
    if args.deep:
        found.problems += _changed_in_secret(config)
    if args.json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        console.print(f"{path}: keys, folders, encoders and runner are fine", highlight=False)
        print_survey(found, console)
    return 1 if found.problems else 0


def _changed_in_secret(config: Config) -> list[str]:
    """Raw files that have other bytes than those that were read, under the same size and time; they are read again."""
    from pipelines.raw.known import Known

    changed = [name for kind in SOURCES for name in Known(kind, config).forget_changed()]
    return [f"{name}: other bytes than those that were read, of the same size and time" for name in changed]


def _ui(args: argparse.Namespace, config: Config, path: Path) -> int:
    from assets.ui import serve_ui

    return serve_ui(config, args.port)


def _report(args: argparse.Namespace, config: Config, path: Path) -> int:
    """Print where the page of a night is; open it in the browser on request."""
    from assets.resources import lake_of

    lake = lake_of(config)
    days = [d for d in lake.days("reports") if args.date in (None, d)]
    if not days:
        night = f"the night of {args.date}" if args.date else "any night"
        print(f"no page of {night} in {lake.root}; run it: nightloom run --date {args.date or 'DAY'}", file=sys.stderr)
        return 1
    page = lake.folder("reports", days[-1]) / "index.html"
    print(page)
    if args.open:
        webbrowser.open(page.as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The headless command: a night, a range of nights, a check of the configuration, the UI.

Exit code 0: every step succeeded; 1: a night failed; 2: the configuration or the command line is wrong, nothing was
run; 130: interrupted. Belongs here: the command line. Does not: how a night is run (``runs``).
"""

import argparse
import json
import logging
import os
import sys
import webbrowser
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from assets.arguments import ASKED, INTERRUPTED, build_parser
from pipelines.config import ENV_CONFIG, Config, ConfigError, config_path, load_config
from pipelines.sections import SOURCES
from pipelines.verify import verify


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return the exit code."""
    args = build_parser().parse_args(argv)
    if args.command in ("init", "import"):
        return {"init": _init, "import": _import}[args.command](args)
    try:
        path = Path(args.config).resolve() if args.config else config_path()
        config = load_config(path)
        os.environ[ENV_CONFIG] = str(path)
        if args.command not in ("ui", "hub", "report", *ASKED):
            verify(config, str(path))
    except ConfigError as e:
        print(e, file=sys.stderr)
        return 2
    commands = {"run": _run, "backfill": _backfill, "search": _search, "check": _check, "ui": _ui}
    commands |= {"accept": _accept, "power": _power, "report": _report, "hub": _hub}
    commands |= dict.fromkeys(ASKED, _ask)
    try:
        return commands[args.command](args, config, path)
    except KeyboardInterrupt:
        print("interrupted; nothing is half-published", file=sys.stderr)
        return INTERRUPTED


STOPPED = "what stopped the night is no number to accept, and says what to do:"
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
    from assets.runs import run_nights

    return run_nights(config, path, [args.date], args.verbose)


def _backfill(args: argparse.Namespace, config: Config, path: Path) -> int:
    from assets.runs import run_nights

    days = [args.first + timedelta(days=n) for n in range((args.last - args.first).days + 1)]
    if not days:
        print(f"--from {args.first} is after --to {args.last}", file=sys.stderr)
        return 2
    return run_nights(config, path, days, args.verbose)


def _accept(args: argparse.Namespace, config: Config, path: Path) -> int:
    """Accept what is out of range on a night, and run it."""
    from assets.runs import run_nights
    from pipelines.lake.health import accept, is_carried, said
    from pipelines.lake.storage import Lake, StorageError

    lake = Lake.of(config)
    try:
        rows = accept(config, lake, args.date)
    except StorageError as e:
        if lake.manifest("recommendations", args.date) and is_carried(lake, args.date):
            why = lake.read("recommendations", args.date, ["carried_why"])["carried_why"].to_pylist()[:1]
            print(STOPPED, *why, sep="\n", file=sys.stderr)
        else:
            print(f"{e}\nthere is nothing to accept before a night was run", file=sys.stderr)
        return 1
    for row in rows:
        print(f"accepted {said(row)}")
    if not rows:
        print(f"all numbers of {args.date} are in their usual range; nothing to accept", file=sys.stderr)
        return 1
    return run_nights(config, path, [args.date], args.verbose)


def _hub(args: argparse.Namespace, config: Config, path: Path) -> int:
    """Visit the exchange as its hub; exit code 1 where sites are missing and that is to stop it."""
    from pipelines.federation.hub import MissingSitesError, visit

    if config.federate is None or config.federate.role != "hub":
        print(f'{path} is no hub: expected [federate] with role = "hub", exchange and sites', file=sys.stderr)
        return 2
    try:
        done = visit(config.federate, args.date or datetime.now(ZoneInfo(config.timezone)).date() - timedelta(days=1))
    except MissingSitesError as e:
        print(e, file=sys.stderr)
        return 1
    print("\n".join(done) or "nothing to do")
    return 0


def _power(args: argparse.Namespace, config: Config, path: Path) -> int:
    """Print how many days an experiment needs; exit code 2 where there is no such experiment."""
    from pipelines.experiment import planned
    from pipelines.lake.storage import Lake, StorageError

    if args.experiment not in config.experiments:
        known = ", ".join(config.experiments) or "none"
        print(f"no [experiments.{args.experiment}] in {path}; there are: {known}", file=sys.stderr)
        return 2
    try:
        found = planned(config, Lake.of(config), args.date, args.experiment)
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
    from pipelines.lake.cards import load_card
    from pipelines.lake.storage import Lake, StorageError
    from pipelines.search import search

    lake = Lake.of(config)
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
    from pipelines.lake.storage import Lake

    lake = Lake.of(config)
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


def _ask(args: argparse.Namespace, config: Config, path: Path) -> int:
    """Answer a question about nights that were run; exit code 1 where there is no answer."""
    from assets.told import answer, tell
    from pipelines.ask import UnknownError
    from pipelines.lake.storage import Lake, StorageError

    try:
        found = answer(args, config, Lake.of(config))
    except (UnknownError, StorageError) as e:
        print(e, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(found, ensure_ascii=False, default=str))
    else:
        tell(args, found, config, Lake.of(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())

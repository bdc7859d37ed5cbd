"""README names what the code has: tables, configuration and its defaults, recommenders, encoders, commands."""

import re
from inspect import signature
from typing import Any

import pytest

from assets.arguments import build_parser
from encoders.catalogue import BUILTIN
from encoders.settings import ModelChoice
from pipelines.beyond import Federate, Graph, Privacy
from pipelines.config import Config
from pipelines.lake.tables import TABLES
from pipelines.recommenders.registry import RECOMMENDERS, classes
from pipelines.sections import Experiment
from tests.shop import REPO

README = (REPO / "README.md").read_text()
OPTIONAL_TABLES = {"aug_views"}  # described where they are switched on


def rows(heading: str) -> list[list[str]]:
    """Cells of the table whose head begins with these words; an escaped bar is part of its cell."""
    body = README.split(f"| {heading} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_tables_and_their_keys() -> None:
    shown = {name: cells[1] for cells in rows("table | key") for name in quoted(cells[0])}
    assert shown.keys() == TABLES.keys() - OPTIONAL_TABLES
    assert {name: tuple(key.split(", ")) for name, key in shown.items()} == {
        name: table.key for name, table in TABLES.items() if name in shown
    }
    assert all(f"`{name}`" in README for name in OPTIONAL_TABLES)


def sections() -> dict[str, dict[str, Any]]:
    """Section -> key -> field; keys of the file's top are in the section ``""``."""
    found: dict[str, dict[str, Any]] = {"": {}}
    for name, field in Config.model_fields.items():
        section = {
            "encoders": ModelChoice,
            "experiments": Experiment,
            "graphs": Graph,
            "federate": Federate,
            "privacy": Privacy,
        }.get(name, field.annotation)
        keys = getattr(section, "model_fields", None) or getattr(section, "__pydantic_fields__", None)
        if keys:
            found[name] = dict(keys)
        else:
            found[""][name] = field
    return found


def test_every_key_of_the_configuration_and_no_other() -> None:
    shown: dict[str, set[str]] = {}
    for key, _, meaning in rows("key | default"):
        names = quoted(key)
        if "." in names[0] and "<" not in names[0]:
            shown.setdefault("paths", set()).update(n.removeprefix("paths.") for n in names)
        elif names[0] in ("start_date", "domain", "timezone", "tracking"):
            shown.setdefault("", set()).update(names)
        else:
            keys = {k for k in quoted(meaning) if re.fullmatch("[a-z_]+", k)}
            shown |= {re.sub(r"\.<\w+>$", "", name): keys for name in names}
    assert shown == {name: set(keys) for name, keys in sections().items()}


WORDS = {"all", "by", "of"}  # what a default is said by where it is no single value


@pytest.mark.parametrize("section", ["aligner", "recommend", "compute", "finetune", "augment", "encoders.<modality>"])
def test_defaults(section: str) -> None:
    cell = next(cells[2] for cells in rows("key | default") if f"`{section}`" in cells[0])
    shown = {key: value for key, value in re.findall(r"`([a-z_]+)` ([^,;]+)", cell) if value.split()[0] not in WORDS}
    fields = sections()[section.removesuffix(".<modality>")]
    defaults = {key: fields[key].get_default(call_default_factory=True) for key in shown}
    said = {k: str(d).lower() if isinstance(d, bool) else str(d) for k, d in defaults.items()}
    assert {k: v.removesuffix(".0").replace("()", "[]") for k, v in said.items()} == shown


def test_recommenders_and_their_settings() -> None:
    shown = {quoted(cells[0])[0]: cells[2] for cells in rows("`models` | what it is")}
    assert list(shown) == list(RECOMMENDERS)
    for name, made in classes().items():
        settings = signature(made).parameters
        assert set(quoted(shown[name])) <= set(settings), name
        for key, value in re.findall(r"`([a-z_]+)` ([a-z0-9]+(?:\.[0-9]+)?)", shown[name]):
            assert str(settings[key].default).removesuffix(".0") == value, f"{name}.{key}"


def test_encoders() -> None:
    shown = [name for cells in rows("modality | default") for name in quoted(cells[1])]
    assert {n for n in shown if n in BUILTIN} == set(BUILTIN), "built-in encoders"


def test_commands() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.M))
    named = {a or b for a, b in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", README, re.M)}
    assert named <= targets
    assert targets - named <= {"setup", "clean"}, "what make can do is said"
    known = next(a.choices for a in build_parser()._actions if a.choices)
    names = "run|backfill|accept|search|power|check|init|import|report|explain|similar|history|compare|hub|ui"
    assert set(re.findall(rf"nightloom ({names})\b", README)) == set(known or ())
    for module in set(re.findall(r"python -m ([a-z_.]+)", README)):
        path = REPO / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module

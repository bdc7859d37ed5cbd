"""The mutation tester makes small changes, the same for the same seed, of what the program computes."""

import ast
import tomllib
from pathlib import Path

from tests.mutants import annotated, places, sample
from tests.shop import REPO

SOURCE = """
import logging

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    x: int | None = 3


def far(point: "Point | None", most: int = 5) -> bool | None:
    log.info("%d", 1 + 2)
    return point.x > most
"""


def test_types_and_messages_are_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    lines = SOURCE.splitlines()
    changed = {lines[line - 1].strip() for line, _ in places(path)}
    assert changed == {
        "x: int | None = 3",
        'def far(point: "Point | None", most: int = 5) -> bool | None:',
        "return point.x > most",
    }
    kinds = {name.split("_")[0] for at, found in places(path).items() for name, _ in found if at[0] == 9}
    assert kinds == {"core/NumberReplacer"}, "the default, not the type"
    assert (12, lines[11].index("|")) in annotated(SOURCE)


def test_a_sample_is_seeded_and_every_change_is_a_program() -> None:
    first, again, other = (sample(12, seed, "metrics") for seed in (0, 0, 1))
    assert first == again
    assert {m.diff for m in first} != {m.diff for m in other}
    for mutant in first:
        ast.parse(mutant.source)
        assert mutant.path == "pipelines/learning/metrics.py"
        assert mutant.source != (REPO / mutant.path).read_text()
        assert {line[0] for line in mutant.diff.splitlines()} <= {"+", "-"}
        assert (REPO / mutant.path).read_text().splitlines()[mutant.line - 1] in mutant.diff


def test_reasons_are_given_for_lines_that_are_still_there() -> None:
    for entry in tomllib.loads((REPO / "tests/mutants.toml").read_text())["survivor"]:
        old = [line[2:] for line in entry["diff"].strip().splitlines() if line.startswith("- ")]
        source = (REPO / entry["path"]).read_text().splitlines()
        assert set(old) <= set(source), entry
        assert entry["reason"]

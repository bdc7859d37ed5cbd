"""Mutation test: does the fast tier notice a wrong change? ``make mutants``, or ``python -m tests.mutants --help``.

A seeded sample of small changes (cosmic-ray's operators: comparisons, arithmetic, numbers, conditions, loops,
decorators, caught exceptions; one a place in the code) is made one by one in a copy of the checkout, and the tests of
the fast tier that run the changed line are run. A change that no test notices survives and is listed, with the reason
that ``mutants.toml`` gives for it. Exit code 0 where enough are killed.
"""

import argparse
import ast
import difflib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator, operator_names
from coverage.numbits import numbits_to_nums
from tqdm import tqdm

from encoders.carried.weights import weights_root
from tests.shop import REPO

WHERE = ("night/", "standardize.py", "evaluate.py", "score.py", "fuse.py", "lake/promises.py", "learning/")
FAST_TIER = ["-q", "-p", "no:cacheprovider", "-m", "not slow"]
GOAL = 0.85
SAYS_NO_VALUE = ("@dataclass(", "if TYPE_CHECKING:", "log.")  # starts of lines that say nothing of what is computed
SAME_FOR_NONE = {  # the code compares identity with None alone, where these say the same
    "core/ReplaceComparisonOperator_Is_Eq",
    "core/ReplaceComparisonOperator_IsNot_NotEq",
}


@dataclass(frozen=True)
class Mutant:
    """One wrong change.

    Attributes:
        path: file, relative to the checkout.
        line: first line that it changes.
        operator: cosmic-ray's name of it.
        source: the whole file with the change.
        diff: the changed lines, as ``- old`` and ``+ new``.
    """

    path: str
    line: int
    operator: str
    source: str
    diff: str


def annotated(source: str) -> set[tuple[int, int]]:
    """Line and column of all that is said about types only; a change there is none to the program."""
    places: set[tuple[int, int]] = set()
    for node in ast.walk(ast.parse(source)):
        notes = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for inner in (inner for note in notes if isinstance(note, ast.AST) for inner in ast.walk(note)):
            if isinstance(inner, ast.expr) and inner.end_col_offset is not None:
                places |= {(inner.lineno, column) for column in range(inner.col_offset, inner.end_col_offset)}
    return places


def places(path: Path) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Line and column of what can be changed in a file -> operators, each with its count of the place in the file."""
    source = path.read_text()
    lines, skipped, tree = source.splitlines(), annotated(source), get_ast(source)
    found: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for name in sorted(set(operator_names()) - SAME_FOR_NONE):
        if "Variable" in name:  # needs arguments
            continue
        operator, count = get_operator(name)(), 0
        for node in ast_nodes(tree):
            for (line, column), _ in operator.mutation_positions(node):
                if (line, column) not in skipped and not lines[line - 1].strip().startswith(SAYS_NO_VALUE):
                    found[line, column].append((name, count))
                count += 1
    return found


def sample(count: int, seed: int, only: str) -> list[Mutant]:
    """A seeded sample of places in files whose path holds ``only``, none twice, each with one of its changes."""
    globs = [f"{where}*.py" if where.endswith("/") else where for where in WHERE]
    files = [p for glob in globs for p in sorted((REPO / "pipelines").glob(glob)) if only in str(p)]
    everywhere = [(path, place, changes) for path in files for place, changes in sorted(places(path).items())]
    rng = random.Random(seed)  # noqa: S311
    made = []
    for path, (line, _), changes in rng.sample(everywhere, len(everywhere)):
        name, occurrence = rng.choice(changes)
        old = path.read_text()
        new = MutationVisitor.mutate_code(old, get_operator(name)(), occurrence)
        lines = [x for x in difflib.ndiff(old.splitlines(), (new or old).splitlines()) if x[0] in "+-"]
        if lines:
            made.append(Mutant(str(path.relative_to(REPO)), line, name, str(new), "\n".join(lines)))
        if len(made) == count:
            break
    return made


class Tests:
    """Which tests of the fast tier run which lines, by coverage of one run of it.

    Args:
        checkout: a copy of the repository; the tier is run in it.

    Raises:
        SystemExit: a test fails without any change.
    """

    def __init__(self, checkout: Path):
        start = time.perf_counter()
        done = run_tests(checkout, ["--cov=pipelines", "--cov-context=test", "--cov-report="], timeout=900)
        if done.returncode:
            raise SystemExit(f"the fast tier fails before anything is changed:\n{done.stdout[-3000:]}")
        self.seconds = time.perf_counter() - start
        self.of_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.of_file: dict[str, set[str]] = defaultdict(set)
        query = """SELECT path, context, numbits FROM line_bits
                   JOIN file ON file.id = file_id JOIN context ON context.id = context_id WHERE context <> ''"""
        with sqlite3.connect(checkout / ".coverage") as data:
            for path, context, bits in data.execute(query):
                name, test = str(Path(path).relative_to(checkout)), context.split("|")[0]
                self.of_file[name].add(test)
                for line in numbits_to_nums(bits):
                    self.of_line[name, line].add(test)
        self.count = len(set().union(*self.of_file.values()))

    def noticing(self, mutant: Mutant) -> list[str]:
        """Tests that run the changed line, else those that run any line of the file; those of its own file first."""
        tests = self.of_line.get((mutant.path, mutant.line)) or self.of_file[mutant.path]
        own = f"tests/{Path(mutant.path).parent}/test_{Path(mutant.path).name}"
        return sorted(tests, key=lambda test: (not test.startswith(own), test))


def run_tests(checkout: Path, arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run the fast tier in a copy; a run that takes too long has failed."""
    env = {**os.environ, "PYTHONPATH": str(checkout), "NIGHTLOOM_WEIGHTS": str(weights_root())}
    command = [sys.executable, "-m", "pytest", *FAST_TIER, *arguments]
    try:
        return subprocess.run(
            command, cwd=checkout, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "timeout", "")


def survives(mutant: Mutant, tests: Tests, checkout: Path) -> bool:
    """Whether all tests pass with the change."""
    noticing = tests.noticing(mutant)
    if not noticing:
        return True
    path = checkout / mutant.path
    before = path.read_text()
    path.write_text(mutant.source)
    try:
        chosen = checkout / ".tests"
        chosen.write_text("\n".join(noticing))
        done = run_tests(checkout, ["-x", f"@{chosen}"], timeout=30 + 3 * tests.seconds * len(noticing) / tests.count)
    finally:
        path.write_text(before)
    broken_import = done.returncode == 4 and "while loading conftest" in done.stderr
    if done.returncode not in (0, 1, 2) and not broken_import:  # 1: a test failed; 2: a module cannot be imported
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def copies(count: int, folder: Path) -> Iterator[Path]:
    """Copies of the files that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.splitlines()
    for i in range(count):
        for name in (n for n in names if (REPO / n).is_file()):
            (folder / str(i) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, folder / str(i) / name)
        yield folder / str(i)


def main() -> int:
    """Make the changes, run the tests, list what survived; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150, help="changes to make (default 150)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another sample (default 0)")
    parser.add_argument("--only", default="", help="files whose path holds this, all others left out")
    parser.add_argument("--workers", type=int, default=2, help="copies that work side by side (default 2)")
    args = parser.parse_args()
    known = tomllib.loads((REPO / "tests/mutants.toml").read_text())["survivor"]
    reasons = {(entry["path"], entry["diff"].strip()): entry["reason"] for entry in known}
    mutants = sample(args.count, args.seed, args.only)
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        free: Queue[Path] = Queue()
        for checkout in copies(args.workers, Path(folder)):
            free.put(checkout)
        first = free.queue[0]
        tests = Tests(first)

        def judged(mutant: Mutant) -> bool:
            checkout = free.get()
            try:
                return survives(mutant, tests, checkout)
            finally:
                free.put(checkout)

        with ThreadPoolExecutor(args.workers) as pool:
            verdicts = tqdm(pool.map(judged, mutants), "mutants", len(mutants), file=sys.stderr)
            survivors = [mutant for mutant, alive in zip(mutants, verdicts, strict=True) if alive]
    for mutant in sorted(survivors, key=lambda m: (m.path, m.line)):
        reason = reasons.get((mutant.path, mutant.diff.strip()), "no reason given")
        print(f"{mutant.path}:{mutant.line} {mutant.operator}\n{mutant.diff}\n  survives: {reason}\n")
    killed = len(mutants) - len(survivors)
    print(f"{killed} of {len(mutants)} mutants killed ({killed / len(mutants):.1%}, goal {GOAL:.0%}), seed {args.seed}")
    return 0 if killed >= GOAL * len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())

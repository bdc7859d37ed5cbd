"""The lowest versions that are promised are those that the tests run with."""

import re
import tomllib

from tests.shop import REPO


def test_lower_bounds_are_the_versions_that_are_tested() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    lines = (REPO / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    for requirement in project["dependencies"]:
        name, bound = re.fullmatch(r"([a-z0-9-]+)>=([0-9.]+)(?:,<[0-9.]+)?", requirement).groups()  # type: ignore[union-attr]
        assert bound == pins[name], f"{name}: {bound} is promised, {pins[name]} is tested"

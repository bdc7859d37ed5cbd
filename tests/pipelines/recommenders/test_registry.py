"""The one list of recommenders."""

from inspect import signature

import pytest

from pipelines.recommenders.base import Hyperparameters
from pipelines.recommenders.registry import (
    RECOMMENDERS,
    blend_of,
    classes,
    known_recommender,
    merged,
    problems_of,
    singles,
    unfitted,
)


def test_every_row_leads_to_a_class_of_its_name() -> None:
    for name, entry in RECOMMENDERS.items():
        assert entry.load().name == name == entry.name
        assert entry.text.endswith(".")
    assert list(classes()) == [n for n in RECOMMENDERS if n != "hybrid"]
    assert (singles(["hybrid", "ease"]), blend_of(["hybrid", "ease"]), blend_of(["ease"])) == (["ease"], "hybrid", None)


def test_unknown_names_are_told_what_is_known() -> None:
    assert known_recommender("als") == "als"
    with pytest.raises(ValueError, match="'alls' is no recommender; known are popularity, user_cf"):
        known_recommender("alls")


def test_what_is_pinned_goes_before_what_was_chosen() -> None:
    chosen: dict[str, Hyperparameters] = {"ease": {"ridge": 1.0, "items": 5}, "als": {"alpha": 2.0}}
    pinned: dict[str, Hyperparameters] = {"ease": {"ridge": 9.0}}
    assert merged(["ease", "user_cf"], chosen, pinned) == {"ease": {"ridge": 9.0, "items": 5}, "user_cf": {}}
    first, second = unfitted(["user_cf", "hybrid", "ease"], {"ease": {"ridge": 9.0}})
    assert (first.name, second.name, second.ridge) == ("user_cf", "ease", 9.0)  # type: ignore[attr-defined]


def test_defaults_and_grids_are_within_the_bounds() -> None:
    for name, kind in classes().items():
        own = [p for p in signature(kind).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert problems_of(name, {p.name: p.default for p in own}) == []
        for settings in kind.grid:
            assert problems_of(name, settings) == [], (name, settings)


@pytest.mark.parametrize(
    ("name", "pinned", "problem"),
    [
        ("ease", {"ridge": True}, "ridge = True: Input should be a valid number"),
        ("ease", {"ridge": 0}, "ridge = 0: Input should be greater than 0"),
        ("graph", {"popularity": 4.5}, "popularity = 4.5: Input should be less than or equal to 4"),
        ("lightgcn", {"activity": 1.5}, "activity = 1.5: Input should be less than or equal to 1"),
        ("popularity", {"x": 1}, "unknown x; known here: none"),
        ("als", {"factor": 1}, "unknown factor; known here: factors, regularization, alpha, iterations"),
    ],
)
def test_pinned_settings_out_of_bounds_are_named(name: str, pinned: dict[str, object], problem: str) -> None:
    assert problems_of(name, pinned) == [problem]


def test_every_problem_is_named_and_whole_numbers_are_numbers() -> None:
    assert len(problems_of("als", {"factors": 0, "alpha": -1.0, "iterations": "x"})) == 3
    assert problems_of("ease", {"ridge": 300}) == []

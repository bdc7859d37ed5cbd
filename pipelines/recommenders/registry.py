"""Recommenders by name: the one list. A recommender is a class in a file of this folder and a row here.

Configuration, assets, checks of pinned settings and tests derive from it. Nothing heavy is imported before a class is
asked for, so that Dagster's definitions may read the list. Does not belong here: any algorithm, models in the lake
(``lake.cards``), when to fit (``train``).
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError, create_model

if TYPE_CHECKING:
    from pipelines.recommenders.base import Hyperparameters, Recommender


@dataclass(frozen=True)
class Entry:
    """One recommender.

    Attributes:
        name: in ``recommend.models``; the asset is ``model_<name>``.
        text: what it is, in a sentence.
        home: ``module:class``. The class's ``__init__`` has the default settings, their types and bounds.
        blends: whether it combines all others and is fitted after them.
        on_content: whether it is nothing without vectors of content.
        on_request: whether only a setting of its own makes it one of the night's.
    """

    name: str
    text: str
    home: str
    blends: bool = False
    on_content: bool = False
    on_request: bool = False

    def load(self) -> "type[Recommender]":
        """The class."""
        module, _, name = self.home.partition(":")
        recommender: type[Recommender] = getattr(importlib.import_module(module), name)
        return recommender

    def make(self, settings: "Hyperparameters") -> "Recommender":
        """A new one under its name."""
        model = self.load()(**settings)
        model.name = self.name
        return model


_HERE = "pipelines.recommenders"
DOMAINS = "domains"  # the recommender of recommend.pool_domains
RECOMMENDERS: dict[str, Entry] = {
    e.name: e
    for e in (
        Entry("popularity", "Decayed popularity, the same for everyone.", f"{_HERE}.neighbours:Popularity"),
        Entry("user_cf", "User-based collaborative filtering (cosine).", f"{_HERE}.neighbours:UserCF"),
        Entry("item_cf", "Item-based collaborative filtering (RP3beta, cosine, BM25).", f"{_HERE}.neighbours:ItemCF"),
        Entry("ease", "EASE: item-item weights that rebuild histories, in closed form.", f"{_HERE}.linear:Ease"),
        Entry("als", "Matrix factorization of implicit feedback by alternating least squares.", f"{_HERE}.linear:ALS"),
        Entry(
            "graph",
            "Low-pass filter of the interaction graph and of graphs of items alike in content.",
            f"{_HERE}.graph:GraphFilter",
        ),
        Entry(
            "lightgcn",
            "A small graph network trained with a softmax over the whole catalogue.",
            f"{_HERE}.lightgcn:LightGCN",
        ),
        Entry(
            "content",
            "Cosine of raw modality vectors to the history and uploads.",
            f"{_HERE}.content:Content",
            on_content=True,
        ),
        Entry(
            "multimodal",
            "Dot product in the unified space plus a graph of items alike in it.",
            f"{_HERE}.content:Multimodal",
            on_content=True,
        ),
        Entry("sequential", "What is liked after what, and how recently.", f"{_HERE}.sequential:Sequential"),
        Entry(
            "transfer",
            "What users would do with items that nobody has liked yet, learned by hiding liked items.",
            f"{_HERE}.blend.transfer:Transfer",
            on_content=True,
        ),
        Entry(
            DOMAINS,
            "Popularity, neighbours, factors and walks of every domain alone; with `pool_domains`.",
            f"{_HERE}.domains:Domains",
            on_request=True,
        ),
        Entry(
            "hybrid",
            "All others stacked on the last days before the night; warm and cold users apart.",
            f"{_HERE}.blend.hybrid:Hybrid",
            blends=True,
        ),
    )
}

USUAL = tuple(name for name, e in RECOMMENDERS.items() if not e.on_request)  # those of a night that names none

EXTERNAL = "external_"  # begins the name of a recommender whose lists somebody else has made


def entry(name: str) -> Entry:
    """The recommender of a name; every name of external lists has one.

    Raises:
        KeyError: there is none of that name.
    """
    if name.startswith(EXTERNAL):
        text = f"Lists of {name.removeprefix(EXTERNAL)}, as delivered."
        return Entry(name, text, f"{_HERE}.external:External")
    return RECOMMENDERS[name]


def known_recommender(name: str) -> str:
    """The name of a recommender.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in RECOMMENDERS and not name.startswith(EXTERNAL):
        raise ValueError(f"'{name}' is no recommender; known are {', '.join(RECOMMENDERS)}")
    return name


def singles(names: Sequence[str]) -> list[str]:
    """Those of the names that do not combine others."""
    return [n for n in names if not entry(n).blends]


def blend_of(names: Sequence[str]) -> str | None:
    """The one of the names that combines the others, or None."""
    return next((n for n in names if entry(n).blends), None)


def classes() -> "dict[str, type[Recommender]]":
    """Name -> class of every recommender that does not combine others."""
    return {n: entry(n).load() for n in singles(list(RECOMMENDERS))}


def unfitted(names: Sequence[str], settings: "Mapping[str, Hyperparameters]") -> "list[Recommender]":
    """New recommenders, without the one that combines them.

    Args:
        names: which ones.
        settings: name -> what differs from the defaults.
    """
    return [entry(n).make(settings.get(n, {})) for n in singles(names)]


def merged(
    names: Sequence[str], chosen: "Mapping[str, Hyperparameters]", pinned: "Mapping[str, Hyperparameters]"
) -> "dict[str, Hyperparameters]":
    """Name -> what differs from the defaults: what a search chose, and what is pinned before that."""
    return {n: dict(chosen.get(n, {})) | dict(pinned.get(n, {})) for n in names}


def problems_of(name: str, pinned: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings that a user pinned: unknown names, other types, out of bounds."""
    known = _parameters(name)
    fields: dict[str, Any] = {p.name: (p.annotation, p.default) for p in known}
    model = create_model("Pinned", __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False), **fields)
    try:
        model.model_validate(dict(pinned))
    except ValidationError as e:
        names = ", ".join(p.name for p in known) or "none"
        return [
            f"unknown {x['loc'][0]}; known here: {names}"
            if x["type"] == "extra_forbidden"
            else f"{x['loc'][0]} = {x['input']!r}: {x['msg']}"
            for x in e.errors()
        ]
    return []


def _parameters(name: str) -> list[inspect.Parameter]:
    every = inspect.signature(entry(name).load()).parameters.values()
    return [p for p in every if p.kind is p.POSITIONAL_OR_KEYWORD]  # a protocol's own __init__ takes anything

"""Sections of the configuration file about what lies beyond the house: other sites, what the world knows of its items.

Does not belong here: sections of the house itself (``sections``), of running nights (``operation``).
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.sections import Settings


class Federate(Settings):
    """Sites that share sums over their users, and no logs; see ``pipelines.federate``."""

    role: Literal["site", "hub"]
    exchange: str = Field(description="folder or fsspec URI that sites and hub exchange files by")
    sites: tuple[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], ...] = Field(
        min_length=2, description="names of all sites"
    )
    name: str = Field("", description="of this site, one of sites; a hub has none")
    missing: Literal["go_on", "stop"] = Field("go_on", description="what is done where sites have left no share")
    items: Literal["item_id", "content"] = Field(
        "item_id", description="what items of several sites are the same by: their id, or all of their content"
    )
    max_age_days: int = Field(7, ge=1, description="days before a night that sums may know at last, to be still used")
    most_items: int = Field(4000, ge=1, description="of all sites; sums have the square of them")

    @model_validator(mode="after")
    def _one_of(self) -> "Federate":
        if self.role == "site" and self.name not in self.sites:
            raise ValueError(f"name = '{self.name}' is none of sites ({', '.join(self.sites)})")
        if len(set(self.sites)) < len(self.sites):
            raise ValueError(f"sites names one twice: {', '.join(self.sites)}")
        return self


class Privacy(Settings):
    """What may be told of any one user by the sums that leave a site; see ``pipelines.federation.privacy``."""

    epsilon: float = Field(gt=0, le=64, description="of all shares that ever leave the site, with delta")
    delta: float = Field(1e-6, gt=0, lt=0.01, description="chance that more is told than epsilon says")
    nights: int = Field(30, ge=1, description="shares that the budget is for; after them none leaves the site")
    items: int = Field(20, ge=1, description="of a user, those that weigh most, which count")
    least_users: int = Field(30_000, ge=1, description="of a site, below which a share would be noise and stays")


class Graph(Settings):
    """What is known of items as triples (head, relation, tail); see ``pipelines.knowledge``."""

    triples: str = Field(description="file below paths.raw, delimited text or Parquet; heads or tails are item ids")
    columns: dict[Literal["head", "relation", "tail", "item_id", "entity"], str] = Field(
        {}, description="our column -> theirs; without a header the first three count"
    )
    links: str = Field("", description="file of item_id and entity, where triples name items by ids of their own")
    relations: tuple[str, ...] = Field((), description="that make items alike; all where it is empty")
    neighbours: int = Field(20, ge=1, le=1000, description="most similar items that are kept of each")

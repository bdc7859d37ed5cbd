"""Every model of a night: what it is, which stage writes it, group, parents.

Does not belong here: tables (``tables``), how a model is stored (``cards``).
"""

from dataclasses import dataclass

from pipelines.recommenders.registry import RECOMMENDERS


@dataclass(frozen=True)
class Model:
    """A model that a stage writes: files and a JSON card, partitioned by day; see ``Table`` for the attributes."""

    name: str
    description: str
    stage: str
    group: str
    parents: tuple[str, ...]


def models() -> dict[str, Model]:
    """Name -> every model that a night may write."""
    own = (
        Model(
            "model_finetuned",
            "The text encoder trained on the log every few nights; a new model re-embeds the catalogue.",
            stage="finetune",
            group="embedded",
            parents=("std_items", "std_interactions", "night_health"),
        ),
        Model(
            "model_aligner",
            "One space for all modalities, learned from who likes what: a projection each, then fused.",
            stage="align",
            group="embedded",
            parents=("emb_*", "aug_views", "std_interactions"),
        ),
        Model(
            "model_settings",
            "Settings of the recommenders, searched every few nights on the last days before the night.",
            stage="search",
            group="models",
            parents=("feat_*", "night_health"),
        ),
    )
    parents = ("feat_*", "model_settings", "night_health")
    recommenders = (Model(f"model_{e.name}", e.text, "train", "models", parents) for e in RECOMMENDERS.values())
    return {m.name: m for m in (*own, *recommenders)}

"""Every model of a night, and its page: what it is, which stage writes it, group, parents.

Does not belong here: tables (``tables``), how a model is stored (``cards``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.recommenders.registry import RECOMMENDERS, entry


@dataclass(frozen=True)
class Model:
    """What a stage writes as files, partitioned by day; see ``Table`` for the attributes.

    A model is safetensors and a JSON card.
    """

    name: str
    description: str
    stage: str
    group: str
    parents: tuple[str, ...]
    kind: str = "safetensors"


def models(recommenders: Sequence[str] = tuple(RECOMMENDERS)) -> dict[str, Model]:
    """Name -> every model that a night may write.

    Args:
        recommenders: names of those that a night fits.
    """
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
    pooled = Model(
        "model_pooled",
        "Sums over the users of all sites that popularity, item-based CF and EASE are made of.",
        stage="federate",
        group="models",
        parents=("std_interactions", "std_items", "night_health"),
    )
    page = Model(
        "reports",
        "The night as one page to look at, index.html: accuracy, decisions, data, groups, people, items alike.",
        stage="report",
        group="evaluation",
        parents=("eval_*", "recommendations", "similar_items"),
        kind="html",
    )
    told = Model(
        "tracked",
        "What the night has told to TensorBoard, MLflow or Weights & Biases, as points.json.",
        stage="track",
        group="evaluation",
        parents=("eval_*",),
        kind="json",
    )
    parents = ("feat_*", "item_graphs", "model_pooled", "external_lists", "model_settings", "night_health")
    fitted = (Model(f"model_{n}", entry(n).text, "train", "models", parents) for n in recommenders)
    return {m.name: m for m in (*own, pooled, *fitted, page, told)}

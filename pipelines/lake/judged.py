"""Tables of what came back of lists, and of how good they were; ``tables`` has the others.

Belongs here: their columns, keys, stages. Does not: what fills them (the stages that each names).
"""

import pyarrow as pa

from pipelines.lake.schemas import TIMESTAMP, Column, Table

_c = Column

JUDGED = (
    Table(
        "feedback", "What of a night's lists was shown and what came back, once its window of days is over.",
        ("recommendation_id", "user_id"),
        (
            _c("recommendation_id", pa.string(), "as in recommendations"),
            _c("user_id", pa.string(), "user; also one who was shown the list for anyone else"),
            _c("item_id", pa.string(), "item"),
            _c("night", pa.date32(), "partition of recommendations that it was in"),
            _c("model", pa.string(), "recommender that served it"),
            _c("arm", pa.string(), "experiment arm"),
            _c("rank", pa.int32(), "place in the list, from 1"),
            _c("propensity", pa.float32(), "probability with which it was drawn; null: it was not", True),
            _c("shown", pa.string(), "how that is known: impression, reaction or assumed"),
            _c("clicked", pa.bool_(), "viewed, clicked or played"),
            _c("favourite", pa.bool_(), "made a favourite"),
            _c("rating", pa.float64(), "latest rating, in the source's unit", True),
            _c("purchased", pa.bool_(), "bought"),
            _c("disliked", pa.bool_(), "skipped or disliked"),
            _c("seconds", pa.float64(), "sum of the values of plays, in the source's unit", True),
            _c("reacted_at", TIMESTAMP, "first reaction, UTC", True),
            _c("reactions", pa.int64(), "events that are attributed to it, without impressions"),
        ),
        stage="feedback", group="evaluation", parents=("std_interactions", "std_users", "night_health"),
    ),
    Table(
        "eval_offline", "Yesterday's lists judged by what users did today.", ("model", "metric", "k", "slice"),
        (
            _c("model", pa.string(), "recommender"),
            _c("metric", pa.string(), "recall, ndcg, map, mrr, hit_rate, auc, coverage, novelty, gini, ..."),
            _c("k", pa.int32(), "list length"),
            _c("slice", pa.string(), "all, user_warm, item_cold, activity=6-20, segment=gold, category=..., ..."),
            _c("value", pa.float64(), "mean over users"),
            _c("n_users", pa.int64(), "users in the slice"),
            _c("low", pa.float64(), "lower end of the 95% interval over users", True),
            _c("high", pa.float64(), "upper end", True),
        ),
        stage="evaluate", group="evaluation",
        parents=("reco_candidates@yesterday", "std_interactions", "std_users"),
    ),
    Table(
        "eval_users", "The same, a row a user: to cut by whatever you know of them.", ("model", "user_id"),
        (
            _c("model", pa.string(), "recommender"),
            _c("user_id", pa.string(), "user who came to like something"),
            _c("k", pa.int32(), "list length"),
            _c("relevant", pa.int32(), "items that the user came to like"),
            *(_c(m, pa.float64(), f"{m} of the list") for m in ("recall", "ndcg", "map", "mrr", "hit_rate", "auc")),
            _c("serendipity", pa.float64(), "share of places with a hit that the most popular items do not have"),
            _c("diversity", pa.float64(), "mean of 1 - cosine over the pairs of the list", True),
            _c("calibration", pa.float64(), "divergence of its categories from the history's, in bits", True),
        ),
        stage="evaluate", group="evaluation", parents=("eval_offline",),
    ),
    Table(
        "eval_dials", "What each setting of a dial would have done to yesterday's lists, the others as they are set.",
        ("dial", "setting", "metric", "k"),
        (
            _c("dial", pa.string(), "diversity, calibration, exposure or popularity"),
            _c("setting", pa.float64(), "0 to 1"),
            _c("metric", pa.string(), "ndcg, recall, diversity, calibration, coverage, gini, novelty, popularity_lift"),
            _c("k", pa.int32(), "list length"),
            _c("value", pa.float64(), "mean over users"),
            _c("difference", pa.float64(), "mean of the users' differences to a setting of 0", True),
            _c("low", pa.float64(), "lower end of its 95% interval over users", True),
            _c("high", pa.float64(), "upper end", True),
            _c("n_users", pa.int64(), "users who came to like something, 2,000 of them at most"),
        ),
        stage="tradeoff", group="evaluation",
        parents=("reco_candidates@yesterday", "recommendations@yesterday", "std_interactions", "std_users"),
    ),
    Table(
        "eval_gaps", "Groups of users against all others.", ("model", "metric", "k", "kind", "group"),
        (
            _c("model", pa.string(), "recommender"),
            _c("metric", pa.string(), "ndcg or recall"),
            _c("k", pa.int32(), "list length"),
            _c("kind", pa.string(), "segment, activity, or a column of users/"),
            _c("group", pa.string(), "its value"),
            _c("value", pa.float64(), "mean over the group"),
            _c("difference", pa.float64(), "to the mean of all who are of another group"),
            _c("low", pa.float64(), "lower end of its 95% interval"),
            _c("high", pa.float64(), "upper end"),
            _c("p", pa.float64(), "p-value of the difference (Welch)"),
            _c("p_holm", pa.float64(), "the same, corrected for all groups looked at (Holm)"),
            _c("n_users", pa.int64(), "users in the group"),
            _c("widest", pa.float64(), "difference between the best and the worst group of the kind"),
        ),
        stage="evaluate", group="evaluation", parents=("eval_offline",),
    ),
    Table(
        "eval_experiments", "Arms of experiments so far, and what is decided.", ("experiment", "metric", "arm"),
        (
            _c("experiment", pa.string(), "name in the configuration"),
            _c("arm", pa.string(), "name of the arm"),
            _c("metric", pa.string(), "column of feedback: the metric, or a guardrail"),
            _c("users", pa.int64(), "users of the arm who were served; segments where they are the unit"),
            _c("days", pa.int64(), "nights whose lists are judged"),
            _c("mean", pa.float64(), "of the metric, a user and day"),
            _c("effect", pa.float64(), "difference to the first arm, less what users did before (CUPED)", True),
            _c("relative", pa.float64(), "the same as a share of the first arm's mean", True),
            _c("low", pa.float64(), "lower end of an interval that holds on all nights at once", True),
            _c("high", pa.float64(), "upper end", True),
            _c("variance_removed", pa.float64(), "share of the metric's variance that users' past explains"),
            _c("sample_ratio_p", pa.float64(), "p-value of how users fell into the arms"),
            _c("decision", pa.string(), "continue, promote, roll_back, keep or invalid"),
            _c("served_arm", pa.string(), "arm that all are served once it is over"),
            _c("reason", pa.string(), "why"),
            _c("decided_on", pa.date32(), "night of the decision"),
        ),
        stage="experiment", group="evaluation", parents=("feedback",),
    ),
    Table(
        "eval_offpolicy", "What each recommender would bring at drawn places.", ("model", "estimator"),
        (
            _c("model", pa.string(), "recommender, whose own top K stand for its way to serve"),
            _c("estimator", pa.string(), "ips, snips or doubly_robust"),
            _c("value", pa.float64(), "clicks a place; null where the log says too little", True),
            _c("low", pa.float64(), "lower end of the 95% interval", True),
            _c("high", pa.float64(), "upper end", True),
            _c("places", pa.int64(), "drawn places that were shown in the last four weeks"),
            _c("effective", pa.float64(), "what they are worth (Kish's effective sample size)", True),
            _c("note", pa.string(), "why there is no value", True),
        ),
        stage="offpolicy", group="evaluation", parents=("feedback",),
    ),
)  # fmt: skip

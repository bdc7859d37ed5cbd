"""Names of events and wishes as shops, music services and analytics write them, and the name of ours that each means.

Belongs here: the table of synonyms. Does not: how much an event weighs (``sections.Recommend.event_weights``).
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

SYNONYMS: dict[str, tuple[str, ...]] = {
    "impression": (
        "impressions", "exposure", "exposed", "shown", "display", "displayed", "view_item_list", "product_list_viewed",
        "item_list_view", "viewable_impression", "recommendation_shown",
    ),
    "view": (
        "view_item", "page_view", "pageview", "product_view", "item_view", "detail_view", "viewed", "product_viewed",
        "detail_page_view", "impression_click", "read",
    ),
    "click": ("clicked", "tap", "select_item", "product_clicked", "click_out", "clickout"),
    "cart": ("add_to_cart", "addtocart", "cart_add", "added_to_cart", "add_to_basket", "basket", "product_added"),
    "purchase": ("buy", "bought", "transaction", "order", "ordered", "sale", "checkout_complete", "purchased", "pay"),
    "favorite": (
        "like", "liked", "fav", "favourite", "favorited", "favourited", "add_to_wishlist", "wishlist", "bookmark",
        "save", "saved", "thumbs_up", "upvote",
    ),
    "play": ("played", "listen", "listened", "watch", "watched", "stream", "scrobble"),
    "share": ("shared", "retweet", "repost"),
    "rating": ("rate", "rated", "review", "stars"),
    "skip": ("skipped", "next_track"),
    "dislike": ("disliked", "thumbs_down", "downvote", "not_interested", "hide", "unlike"),
}  # fmt: skip
MEANING = {written: ours for ours, names in SYNONYMS.items() for written in names}


WISHES: dict[str, tuple[str, ...]] = {
    "hide": ("block", "never", "remove", "ban", "not_interested", "dislike"),
    "less": ("fewer", "see_less", "show_less"),
    "more": ("see_more", "show_more", "boost"),
    "undo": ("unhide", "none", "take_back"),
    "reset": ("clear", "forget", "start_over"),
}
WISHED = {written: ours for ours, names in WISHES.items() for written in (ours, *names)}


def wished(wishes: pa.Array) -> pa.Array:
    """hide, less, more, undo or reset for each wish; null for what is none of them."""
    names = pc.unique(wishes).drop_null()
    if not len(names):
        return wishes
    plain = [re.sub(r"[\s\-]+", "_", n.strip()).casefold() for n in names.to_pylist()]
    ours = pa.array([WISHED.get(n) for n in plain], pa.string())
    return ours.take(pc.index_in(wishes, value_set=names))


def canonical(events: pa.Array) -> pa.Array:
    """The name of ours for each event: lower case, words joined by ``_``, synonyms replaced; others stay."""
    names = pc.unique(events).drop_null()
    if not len(names):
        return events
    ours = pa.array([meaning_of(n) for n in names.to_pylist()], pa.string())
    return ours.take(pc.index_in(events, value_set=names))


def meaning_of(event: str) -> str:
    """The name of ours for one event."""
    name = re.sub(r"[\s\-]+", "_", event.strip()).casefold()
    return MEANING.get(name, MEANING.get(name.replace("_", ""), name))

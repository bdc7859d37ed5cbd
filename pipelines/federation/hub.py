"""The hub's part: open a round with what its sites offer, add up their shares, say who is missing.

It sees masked shares and sums, and no single site's numbers. Belongs here: one visit of the hub to the exchange.
"""

import logging
from collections import Counter
from datetime import date

import numpy as np

from pipelines.beyond import Federate
from pipelines.federation.exchange import Exchange, Summed
from pipelines.federation.statistics import FEWEST, Layout

log = logging.getLogger(__name__)


class MissingSitesError(Exception):
    """Sites have left no share, and the configuration says to stop."""


def visit(settings: Federate, night: date) -> list[str]:
    """Add up the rounds whose shares are there, ask for what is missing, and open a round of the night's offers.

    Args:
        settings: of the hub.
        night: whose offers a round is opened with; rounds of earlier nights are due.

    Returns:
        What was done, a line each.

    Raises:
        MissingSitesError: a due round lacks shares, and ``missing = "stop"``.
    """
    exchange, done = Exchange(settings.exchange), list[str]()
    for of in exchange.rounds():
        if exchange.summed(of) is None:
            done.append(_advanced(exchange, settings, of, due=of < str(night)))
    if str(night) not in exchange.rounds():
        done.append(_opened(exchange, settings, night))
    for line in done:
        log.info("%s", line)
    return done


def _advanced(exchange: Exchange, settings: Federate, of: str, due: bool) -> str:
    """What becomes of a round that is open."""
    sites, shares, missing = exchange.sites(of), exchange.shares(of), exchange.missing(of)
    present = [s for s in sites if s in shares and s not in missing]
    if quarrel := exchange.quarrel(of):
        return f"round {of}: {quarrel}; it is given up, the next one goes on"
    if len(present) == len(sites):
        return _summed(exchange, of, present, {})
    if not missing:
        absent = sorted(set(sites) - set(present))
        if not due:
            return f"round {of}: waiting for {', '.join(absent)}"
        if settings.missing == "stop":
            raise MissingSitesError(
                f"round {of}: no share of {', '.join(absent)}; run their nights, or set missing = go_on"
            )
        if len(present) < FEWEST:
            return f"round {of}: {len(present)} of {len(sites)} sites have left a share, {FEWEST} are needed"
        exchange.put_missing(of, absent)
        return f"round {of}: goes on without {', '.join(absent)}; the others take off what they masked against them"
    fixes = {s: exchange.fix(of, s) for s in present}
    if waiting := sorted(s for s, values in fixes.items() if values is None):
        return f"round {of}: goes on without {', '.join(missing)}, waiting for what {', '.join(waiting)} masked"
    return _summed(exchange, of, present, {s: v for s, v in fixes.items() if v is not None})


def _summed(exchange: Exchange, of: str, present: list[str], fixes: dict[str, np.ndarray]) -> str:
    total = np.zeros(Layout(len(exchange.frame(of))).length, np.uint64)
    for site in present:
        total += exchange.share(of, site)
        total -= fixes.get(site, np.uint64(0))
    nights, missing = exchange.shares(of), [s for s in exchange.sites(of) if s not in present]
    night, noise = max(nights[s] for s in present), exchange.noise(of, present)
    exchange.put_sum(Summed(of, night, tuple(present), tuple(missing), noise), total)
    without = f", without {', '.join(missing)}" if missing else ""
    return f"round {of}: the sum of {', '.join(present)}{without}"


def _opened(exchange: Exchange, settings: Federate, night: date) -> str:
    offers = {s: keys for s in settings.sites if (keys := exchange.offer(night, s)) is not None}
    if len(offers) < FEWEST:
        return f"round {night}: {', '.join(offers) or 'nobody'} offers items, {FEWEST} sites are needed"
    number = Counter(key for keys in offers.values() for key in set(keys))
    first = sorted(number, key=lambda key: (-number[key], key))[: settings.most_items]
    exchange.open_round(night, list(offers), sorted(first))
    absent = sorted(set(settings.sites) - set(offers))
    left = f"; {len(number) - len(first)} items beyond most_items are left out" if len(number) > len(first) else ""
    without = f", without {', '.join(absent)}" if absent else ""
    return f"round {night}: opened with {len(first)} items of {', '.join(offers)}{without}{left}"

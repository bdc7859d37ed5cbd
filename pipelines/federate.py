"""A site's part of federated nights: offer its items, leave masked sums over its users, use the sum of all.

Writes ``model_pooled``, ``fed_stats``, ``privacy_ledger``. What a night leaves at the exchange is used by the nights
after the hub's next visit: nothing waits for anybody. Belongs here: one visit of a site. Does not: the hub's
(``federation.hub``), noise (``federation.privacy``), what recommenders make of the sums (``recommenders``).
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scipy import sparse

from encoders.modalities import FILES
from pipelines.beyond import Federate, Privacy
from pipelines.config import Config
from pipelines.federation.exchange import Exchange, Summed
from pipelines.federation.masks import mask, private_key, public_text
from pipelines.federation.privacy import Entry, Ledger, bounded, deviations, epsilon_of, multiplier_of, with_noise
from pipelines.federation.statistics import FEWEST, Layout, sums_of
from pipelines.lake.cards import files_of_model, load_card
from pipelines.lake.storage import Lake, Manifest
from pipelines.lake.tables import TABLES
from pipelines.night.night import Night
from pipelines.raw.places import DataError

log = logging.getLogger(__name__)

SLACK = 1 + 1e-6  # of the budget, for rounding of the accountant
KEPT_SHARES = 5  # latest masked shares, of rounds that a site may have to answer again


def federate(config: Config, lake: Lake, day: date) -> Iterator[Manifest]:
    """Publish the tables of the night, and leave at the exchange what others wait for.

    Raises:
        DataError: another site's key has changed.
    """
    settings = config.federate
    if settings is None:
        return
    most = max([1.0, *config.recommend.event_weights.values()])
    site = Site(settings, config.paths.data / "federate", config.privacy, most)
    night = Night.of(config, lake, day)
    keys = keys_of(night.items(), settings.items)
    site.offer(day, keys)
    rounds, positives = site.exchange.rounds(), night.dataset().positives()
    waiting = [of for of in rounds if of < str(day) and site.exchange.summed(of) is None]
    before = site.newest(rounds, day)
    instead = f"the sum of round {before.round} is used" if before else "recommenders are made of the site's own log"
    for of in waiting:
        if site.name in site.exchange.sites(of):
            site.answer(of, day, positives, keys, instead)
    used = before
    if lake.manifest("model_pooled", day):  # a night that is run again is of the same sums
        of = load_card(lake, "pooled", day)["round"]
        used = site.exchange.summed(of) if of else None
    digest = config.digest("federate", "privacy")
    yield lake.publish_files(
        "model_pooled", day, files_of_model(*site.model(used, night.items(), keys)), config_digest=digest
    )
    rows = pa.Table.from_pylist(site.told(used, waiting), schema=TABLES["fed_stats"].schema({}))
    yield lake.publish("fed_stats", day, rows, config_digest=digest)
    spent = pa.Table.from_pylist(site.spent(day), schema=TABLES["privacy_ledger"].schema({}))
    yield lake.publish("privacy_ledger", day, spent, config_digest=digest)


def keys_of(items: pa.Table, by: str) -> list[str]:
    """What each item of a catalogue is known by to all sites: its id, or a digest of all of its content."""
    ids: list[str] = items["item_id"].to_pylist()
    if by == "item_id":
        return ids
    texts, media = items["text_sha256"].to_pylist(), [items[k.sha_column].to_pylist() for k in FILES]
    contents = [[t or "", *sorted(x for of in m for x in of or [])] for t, *m in zip(texts, *media, strict=True)]
    return [
        hashlib.sha256("|".join(c).encode()).hexdigest() if any(c) else i for c, i in zip(contents, ids, strict=True)
    ]


class Site:
    """A site at its exchange.

    Args:
        settings: of the site.
        folder: where its private key and the others' public ones are kept.
        privacy: what may be told of a user; None where sums are exact.
        most: weight of feedback, above which it counts no more where ``privacy`` is set.
    """

    def __init__(self, settings: Federate, folder: Path, privacy: Privacy | None = None, most: float = 1.0):
        self.settings, self.folder, self.name = settings, folder, settings.name
        self.privacy, self.most = privacy, most
        self.ledger = Ledger(folder / "spent.jsonl")
        self.exchange = Exchange(settings.exchange)
        self.key: X25519PrivateKey = private_key(folder / "key")

    def offer(self, day: date, keys: Sequence[str]) -> None:
        """Leave the site's public key, and its items of a night."""
        self.exchange.put_key(self.name, public_text(self.key))
        self.exchange.put_offer(day, self.name, sorted(set(keys)))

    def answer(self, of: str, day: date, positives: sparse.csr_matrix, keys: Sequence[str], instead: str = "") -> None:
        """Leave the site's share of a round, or what it has masked against sites that are missing.

        Args:
            of: the round.
            day: night that the share knows.
            positives: decayed weights of positive feedback (users, items).
            keys: of the items.
            instead: what the night uses where nothing may leave the site.
        """
        if problem := self._wrong(of):
            log.error("federate: round %s is not answered: %s", of, problem)
            return
        missing, frame, label = self.exchange.missing(of), self.exchange.frame(of), self.exchange.label(of)
        n = Layout(len(frame)).length
        if self.name in self.exchange.shares(of):
            if missing and self.exchange.fix(of, self.name) is None:
                self.exchange.put_fix(of, self.name, mask(self.key, self.name, self._keys(missing), label, n))
                log.info("federate: round %s goes on without %s", of, ", ".join(missing))
            return
        if self.name in missing or self.exchange.quarrel(of):
            log.warning("federate: round %s goes on without this site", of)
            return
        own = on_frame(positives, keys, frame)
        if reason := self._refusal(label, own):
            self.ledger.write(Entry(label, of, str(day), _users_of(own), None, f"{reason}; {instead}"))
            log.error("federate: round %s is not answered: %s", of, reason)
            return
        known = self._masked(of, day, label, own)
        if self.name in self.exchange.missing(of):  # the hub may have been faster
            log.warning("federate: round %s goes on without this site, which was late", of)
            return
        with np.load(known) as share:
            everyone = self._keys(self._others(of)) | {self.name: public_text(self.key)}
            self.exchange.put_share(
                of,
                self.name,
                str(share["night"]),
                share["values"],
                everyone,
                list(share["noise"]) if "noise" in share else (0.0, 0.0, 0.0),
            )
        log.info("federate: round %s: share of %d items", of, len(frame))

    def _others(self, of: str) -> list[str]:
        return [s for s in self.exchange.sites(of) if s != self.name]

    def _wrong(self, of: str) -> str:
        """Why a round is not to be answered, as an answer could show what is this site's own; else empty."""
        sites, missing = set(self.exchange.sites(of)), set(self.exchange.missing(of))
        if not sites <= set(self.settings.sites) or not missing <= sites:
            return f"it is of {', '.join(sorted(sites | missing))}, which are not all in federate.sites"
        if len(sites - missing) < FEWEST:
            return f"it would be the sum of {len(sites - missing)} sites, {FEWEST} are needed"
        shared = sorted(missing & self.exchange.shares(of).keys())
        return f"{', '.join(shared)} have left a share and are said to be missing" if shared else ""

    def _masked(self, of: str, day: date, label: str, positives: sparse.csr_matrix) -> Path:
        """File of the site's masked share of a round; made once, as two shares under one mask tell their difference."""
        path = self.folder / "shares" / f"{label}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            masks = mask(self.key, self.name, self._keys(self._others(of)), label, Layout(positives.shape[1]).length)
            part = path.with_suffix(".part.npz")
            sums, deviation = self._told(of, day, label, positives)
            np.savez(part, values=sums + masks, night=str(day), noise=deviation)
            part.replace(path)
        for old in sorted(path.parent.glob("*.npz"), key=lambda p: p.stat().st_mtime)[:-KEPT_SHARES]:
            old.unlink()
        return path

    def _told(self, of: str, day: date, label: str, positives: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Sums over users, with the noise that privacy asks for, and its standard deviation by part (3,)."""
        if self.privacy is None:
            return sums_of(positives), np.zeros(3)
        multiplier = multiplier_of(self.privacy)
        deviation = deviations(self.privacy, self.most, multiplier)
        self.ledger.write(Entry(label, of, str(day), _users_of(positives), multiplier))  # before it leaves
        return with_noise(sums_of(bounded(positives, self.privacy, self.most)), deviation), deviation

    def _refusal(self, label: str, positives: sparse.csr_matrix) -> str:
        """Why nothing may leave the site; empty where it may. A share that was made already tells nothing more."""
        privacy, users, shares = self.privacy, _users_of(positives), self.ledger.shares()
        if privacy is None:
            return ""
        made, counted = (self.folder / "shares" / f"{label}.npz").exists(), label in {e.label for e in shares}
        if made or counted:
            said = "its share was made without noise" if made else "a share of it was made before, and is gone"
            return "" if made and counted else said
        if users < privacy.least_users:
            return f"{users} users, of whom sums would be noise; privacy.least_users = {privacy.least_users}"
        multipliers = [e.multiplier for e in shares if e.multiplier is not None]
        spent = epsilon_of([*multipliers, multiplier_of(privacy)], privacy.delta)
        if spent > privacy.epsilon * SLACK:
            left = f"{len(multipliers)} shares have spent the budget"
            return f"{left}: one more would be epsilon {spent:.2f}, privacy.epsilon = {privacy.epsilon:g}"
        return ""

    def spent(self, day: date) -> list[dict[str, Any]]:
        """Rows of ``privacy_ledger``: shares up to a night, and what was refused on it."""
        if self.privacy is None:
            return []
        delta, rows, multipliers = self.privacy.delta, list[dict[str, Any]](), list[float]()
        for e in self.ledger.entries():
            row: dict[str, Any] = {"round": date.fromisoformat(e.round), "users": e.users, "delta": delta}
            if e.multiplier is not None:
                multipliers.append(e.multiplier)
                row |= {"share": len(multipliers), "known_until": date.fromisoformat(e.night)}
                row |= {"multiplier": e.multiplier, "decision": "shared", "reason": f"share {len(multipliers)}"}
            else:
                row |= {"share": 0, "decision": "refused", "reason": e.reason}
            if e.night == str(day) or (e.multiplier is not None and e.night < str(day)):
                rows.append(row | {"epsilon": epsilon_of(multipliers, delta)})
        return rows

    def _keys(self, sites: Sequence[str]) -> dict[str, str]:
        """Public keys of other sites; the first one seen of each is kept for good.

        Raises:
            DataError: a key has changed, or is not there.
        """
        path = self.folder / "peers.json"
        known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        problems = []
        for site in sites:
            now = self.exchange.key(site)
            if now is None:
                problems.append(f"federate: site {site} takes part and has left no key at {self.settings.exchange}")
            elif known.setdefault(site, now) != now:
                problems.append(f"federate: the key of site {site} has changed; if they say so, take it out of {path}")
        if problems:
            raise DataError(problems)
        path.with_suffix(".part").write_text(json.dumps(known, sort_keys=True))
        path.with_suffix(".part").replace(path)
        return {site: known[site] for site in sites}

    def newest(self, rounds: Sequence[str], day: date) -> Summed | None:
        """The newest sum of nights up to a day that is not too old; None where there is none."""
        oldest = str(day - timedelta(days=self.settings.max_age_days))
        sums = filter(None, map(self.exchange.summed, reversed(rounds)))
        return next((s for s in sums if oldest <= s.night <= str(day)), None)

    def model(
        self, used: Summed | None, items: pa.Table, keys: Sequence[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and card of ``model_pooled``: the sums, and which of the site's items each is of."""
        if used is None:
            return {"sums": np.zeros(0, np.uint64)}, {"round": None, "item_ids": []}
        own: dict[str, str] = {}
        for key, item in zip(keys, items["item_id"].to_pylist(), strict=True):
            own.setdefault(key, item)
        facts: dict[str, Any] = {"round": used.round, "night": used.night, "sites": used.sites}
        facts |= {"missing": used.missing, "noise": used.noise}
        return {"sums": self.exchange.sum(used.round)}, facts | {
            "item_ids": [own.get(k) for k in self.exchange.frame(used.round)]
        }

    def told(self, used: Summed | None, waiting: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of ``fed_stats``: sites of the sum that is used, and of rounds that wait for somebody."""
        rows = []
        for of in dict.fromkeys([*([used.round] if used else []), *waiting]):
            summed, shares, missing = self.exchange.summed(of), self.exchange.shares(of), self.exchange.missing(of)
            row = {
                "round": date.fromisoformat(of),
                "items": len(self.exchange.frame(of)),
                "used": bool(used and used.round == of),
            }
            for site in self.settings.sites:
                gone = site not in self.exchange.sites(of) or site in (summed.missing if summed else missing)
                state = "missing" if gone else "summed" if summed else "shared" if site in shares else "waited_for"
                until = date.fromisoformat(shares[site]) if site in shares else None
                rows.append(row | {"site": site, "state": state, "known_until": until})
        return rows


def on_frame(positives: sparse.csr_matrix, keys: Sequence[str], frame: Sequence[str]) -> sparse.csr_matrix:
    """The columns of the frame's items (users, items of the frame); of items with the same key the first."""
    own: dict[str, int] = {}
    for row, key in enumerate(keys):
        own.setdefault(key, row)
    columns = np.array([own.get(key, -1) for key in frame], np.int64)
    there = np.flatnonzero(columns >= 0)
    choice = sparse.csr_matrix((np.ones(len(there)), (columns[there], there)), shape=(positives.shape[1], len(frame)))
    return (positives @ choice).tocsr()


def _users_of(positives: sparse.csr_matrix) -> int:
    """Users with any feedback on the items."""
    return int((np.diff(positives.indptr) > 0).sum())

"""The folder or bucket that sites and their hub exchange files by.

A round begins when the hub opens it with the items that its sites offered on a night, in one order for all (the
frame); each site leaves a masked share; the hub leaves their sum. Where some are missing the hub says so, and the
others leave what they had masked against them. Belongs here: which file lies where, reading and writing them whole.
Does not: what is in a share (``statistics``), masks (``masks``), who does what when (``federate``, ``hub``).

Files: ``keys/SITE``, ``offers/NIGHT/SITE.parquet``, and in ``rounds/NIGHT/`` ``round.json``, ``frame.parquet``,
``shares/SITE.npy`` and ``.json``, ``missing.json``, ``fixes/SITE.npy``, ``sum.npy`` and ``.json``.
"""

import hashlib
import io
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROUND = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Summed:
    """What the hub says of the sum of a round.

    Attributes:
        round: night whose offers it is of.
        night: latest night that a share knows.
        sites: whose shares are in it.
        missing: those of the round whose are not.
        noise: standard deviation of the noise in a number of each part of the sums.
    """

    round: str
    night: str
    sites: tuple[str, ...]
    missing: tuple[str, ...]
    noise: tuple[float, ...] = (0.0, 0.0, 0.0)


class Exchange:
    """The exchange.

    Args:
        root: local folder or fsspec URI.
    """

    def __init__(self, root: str):
        import fsspec

        self.fs, path = fsspec.core.url_to_fs(root)
        self.root = path.rstrip("/")

    # --- files ----------------------------------------------------------------------------------------------------

    def _write(self, name: str, content: bytes) -> None:
        """Write a file so that nobody reads a part of it."""
        path = f"{self.root}/{name}"
        self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        self.fs.pipe_file(f"{path}.part", content)
        self.fs.mv(f"{path}.part", path)

    def _read(self, name: str) -> bytes | None:
        try:
            content: bytes = self.fs.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def _names(self, folder: str, suffix: str) -> list[str]:
        try:
            found = self.fs.ls(f"{self.root}/{folder}", detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = [str(f).rstrip("/").rsplit("/", 1)[-1] for f in found]
        return sorted(n.removesuffix(suffix) for n in names if n.endswith(suffix) and not n.endswith(".part"))

    def _json(self, name: str) -> dict[str, Any] | None:
        content = self._read(name)
        return None if content is None else json.loads(content)

    def _put_array(self, name: str, values: np.ndarray) -> None:
        out = io.BytesIO()
        np.save(out, values, allow_pickle=False)
        self._write(name, out.getvalue())

    def _array(self, name: str) -> np.ndarray | None:
        content = self._read(name)
        return None if content is None else np.load(io.BytesIO(content), allow_pickle=False)

    def _there(self, name: str) -> np.ndarray:
        """Numbers that must be there, as the file that says so is written after them.

        Raises:
            FileNotFoundError: they are not.
        """
        values = self._array(name)
        if values is None:
            raise FileNotFoundError(f"{self.root}/{name} is gone; its round has to be taken away as a whole")
        return values

    def _put_ids(self, name: str, ids: Sequence[str]) -> None:
        out = io.BytesIO()
        pq.write_table(pa.table({"key": pa.array(ids, pa.string())}), out)
        self._write(name, out.getvalue())

    def _ids(self, name: str) -> list[str] | None:
        content = self._read(name)
        if content is None:
            return None
        ids: list[str] = pq.read_table(io.BytesIO(content))["key"].to_pylist()
        return ids

    # --- what they are ----------------------------------------------------------------------------------------------

    def put_key(self, site: str, public: str) -> None:
        """Leave a site's public key, unless it is there."""
        if self.key(site) != public:
            self._write(f"keys/{site}", public.encode())

    def key(self, site: str) -> str | None:
        """Public key of a site."""
        content = self._read(f"keys/{site}")
        return None if content is None else content.decode()

    def put_offer(self, night: date, site: str, keys: Sequence[str]) -> None:
        """Leave what the items of a site are known by to all."""
        self._put_ids(f"offers/{night}/{site}.parquet", keys)

    def offer(self, night: date, site: str) -> list[str] | None:
        """Keys that a site offers on a night."""
        return self._ids(f"offers/{night}/{site}.parquet")

    def open_round(self, night: date, sites: Sequence[str], frame: Sequence[str]) -> None:
        """Leave the frame of a round, and last who takes part, with a number that no other round has."""
        self._put_ids(f"rounds/{night}/frame.parquet", frame)
        facts = {"sites": sorted(sites), "nonce": secrets.token_hex(16)}
        self._write(f"rounds/{night}/round.json", json.dumps(facts).encode())

    def rounds(self) -> list[str]:
        """Rounds that are open or summed, oldest first."""
        return [r for r in self._names("rounds", "") if ROUND.fullmatch(r) and self.sites(r)]

    def label(self, of: str) -> str:
        """What a round's masks are made for: its number, who takes part, its items; another for any other round."""
        facts = self._json(f"rounds/{of}/round.json") or {}
        whole = json.dumps([of, facts.get("nonce"), facts.get("sites"), self.frame(of)])
        return hashlib.sha256(whole.encode()).hexdigest()

    def sites(self, of: str) -> list[str]:
        """Who takes part in a round."""
        found = self._json(f"rounds/{of}/round.json")
        return list(found["sites"]) if found else []

    def frame(self, of: str) -> list[str]:
        """Items of a round, in order."""
        return self._ids(f"rounds/{of}/frame.parquet") or []

    def put_share(
        self,
        of: str,
        site: str,
        night: str,
        values: np.ndarray,
        keys: Mapping[str, str],
        noise: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        """Leave a masked share; never another one, which would tell what has changed.

        Args:
            of: the round.
            site: whose share it is.
            night: that it knows.
            values: masked.
            keys: site -> public key that was masked with, its own too.
            noise: standard deviation of the noise in a number of each part.
        """
        self._put_array(f"rounds/{of}/shares/{site}.npy", values)
        told = hashlib.sha256(json.dumps(sorted(keys.items())).encode()).hexdigest()
        facts = {"night": night, "keys": told, "numbers": len(values), "noise": list(noise)}
        self._write(f"rounds/{of}/shares/{site}.json", json.dumps(facts).encode())

    def quarrel(self, of: str) -> str:
        """Why shares of a round cannot be added up, in words; empty where they can."""
        facts = {s: self._json(f"rounds/{of}/shares/{s}.json") or {} for s in self.shares(of)}
        if len({f.get("keys") for f in facts.values()}) > 1:
            return f"{', '.join(facts)} have not masked with the same keys; somebody has made a new one"
        return "shares are not of the same items" if len({f.get("numbers") for f in facts.values()}) > 1 else ""

    def shares(self, of: str) -> dict[str, str]:
        """Site -> night that its share knows, of those that are there."""
        found = {s: self._json(f"rounds/{of}/shares/{s}.json") for s in self._names(f"rounds/{of}/shares", ".json")}
        return {site: facts["night"] for site, facts in found.items() if facts}

    def noise(self, of: str, sites: Sequence[str]) -> tuple[float, ...]:
        """Standard deviation of the noise in the sum of some shares, by part."""
        facts = [self._json(f"rounds/{of}/shares/{s}.json") or {} for s in sites]
        every = np.array([f.get("noise", [0.0, 0.0, 0.0]) for f in facts]).reshape(-1, 3)
        return tuple(np.sqrt((every**2).sum(0)).tolist())

    def share(self, of: str, site: str) -> np.ndarray:
        """A masked share that is there."""
        return self._there(f"rounds/{of}/shares/{site}.npy")

    def put_missing(self, of: str, sites: Sequence[str]) -> None:
        """Say whose shares a round goes on without; from then on they leave none."""
        self._write(f"rounds/{of}/missing.json", json.dumps(sorted(sites)).encode())

    def missing(self, of: str) -> list[str]:
        """Whose shares a round goes on without."""
        return list(self._json(f"rounds/{of}/missing.json") or [])

    def put_fix(self, of: str, site: str, values: np.ndarray) -> None:
        """Leave what a site has masked against those that are missing."""
        self._put_array(f"rounds/{of}/fixes/{site}.npy", values)

    def fix(self, of: str, site: str) -> np.ndarray | None:
        """What a site has masked against those that are missing."""
        return self._array(f"rounds/{of}/fixes/{site}.npy")

    def put_sum(self, made: Summed, values: np.ndarray) -> None:
        """Leave the sum of a round."""
        self._put_array(f"rounds/{made.round}/sum.npy", values)
        self._write(f"rounds/{made.round}/sum.json", json.dumps(asdict(made)).encode())

    def summed(self, of: str) -> Summed | None:
        """What the hub says of the sum of a round, if there is one."""
        found = self._json(f"rounds/{of}/sum.json")
        if found is None:
            return None
        noise = tuple(found.get("noise", Summed.noise))
        return Summed(found["round"], found["night"], tuple(found["sites"]), tuple(found["missing"]), noise)

    def sum(self, of: str) -> np.ndarray:
        """The sum of a round that has one."""
        return self._there(f"rounds/{of}/sum.npy")

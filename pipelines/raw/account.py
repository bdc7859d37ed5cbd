"""The account of a night's raw rows: what was rejected and why, and what became of the rows of each file.

Does not belong here: deciding what is rejected (``pieces``, ``versions``, ``media``).
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.tables import TABLES
from pipelines.raw.pieces import Piece


@dataclass
class Account:
    """Rejects and per-file row counts of one night, gathered as the tables are made."""

    rejects: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def reject(self, stage: str, source: str, position: int, reason: str, detail: str) -> None:
        """Note one rejected row (stage ingest, position > 0), file (position 0) or media reference (stage media)."""
        self.rejects.append(
            {"stage": stage, "source": source, "position": position, "reason": reason, "detail": detail}
        )

    def count(self, kind: str, source: str, **rows: int) -> None:
        """Add rows to a file's account."""
        empty: dict[str, Any] = {"source": source, "kind": kind}
        empty |= dict.fromkeys(("rows_in", "rows_out", "rows_superseded", "rows_quarantined"), 0)
        entry = self.files.setdefault(source, empty)
        for name, n in rows.items():
            entry[f"rows_{name}"] += n

    def count_each(self, kind: str, sources: pa.ChunkedArray, fate: str) -> None:
        """Add one row to the account of each source, as often as it is there."""
        for entry in sorted(sources.value_counts().to_pylist(), key=lambda e: e["values"]):
            self.count(kind, entry["values"], **{fate: entry["counts"]})

    def add_piece_rejects(self, kind: str, piece: Piece, day: date, cumulative: bool) -> None:
        """Rejected rows of a raw file that count on this night: of the day, or of all days up to it."""
        if piece.file_day and piece.file_day > day:
            return
        for r in pq.read_table(piece.rejects).to_pylist():
            when = r["day"]
            if when is None and piece.file_day and not cumulative and piece.file_day != day:
                continue
            if when is not None and (when > day or (when < day and not cumulative)):
                continue
            self.reject("ingest", piece.source, r["position"], r["reason"], r["detail"])
            if r["position"]:
                self.count(kind, piece.source, **{"in": 1, "quarantined": 1})

    def quarantine(self) -> pa.Table:
        """Distinct rejects as rows of ``quarantine``."""
        once = list({tuple(r.values()): r for r in self.rejects}.values())
        return pa.Table.from_pylist(once, schema=TABLES["quarantine"].schema({}))

    def ledger(self) -> pa.Table:
        """The accounts as rows of ``ingest_files``."""
        return pa.Table.from_pylist(list(self.files.values()), schema=TABLES["ingest_files"].schema({}))

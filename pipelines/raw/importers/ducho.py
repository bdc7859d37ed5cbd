"""Ducho's output folders (https://github.com/sisinflab/Ducho): a vector a file, named by item; and a log beside them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.raw.importers.base import DataSetError, Importer, Source, Target

MODALITIES = {"image": ("visual", "image"), "text": ("textual", "text"), "audio": ("audio",)}
VECTORS = pa.schema([("item_id", pa.string()), ("vector", pa.list_(pa.float32()))])


def run(source: Source, target: Target) -> None:
    """One file of vectors a modality (of the deepest folder that has most), and the log of who took up what."""
    log = source.need("*.inter", "*interactions*", "*reviews*", "*ratings*", "*.tsv", "train*")
    target.sql(
        "interactions",
        """SELECT u AS user_id, i AS item_id, 'view' AS event,
                  to_timestamp(coalesce(TRY_CAST(t AS DOUBLE), 946684800)) AS event_at
           FROM read_csv('$file', all_varchar=true, null_padding=true, header=false, names=['u', 'i', 'r', 't'])
           WHERE (TRY_CAST(r AS DOUBLE) IS NOT NULL OR r IS NULL) AND lower(u) NOT LIKE 'user%'""",
        file=log,
    )
    found = {m: _folder(source, names) for m, names in MODALITIES.items()}
    if not any(found.values()):
        raise DataSetError(
            f"no folder with <item>.npy files in {source.folder}; expected visual_embeddings/... or such"
        )
    ids = sorted({p.stem for folder in found.values() if folder for p in folder.glob("*.npy")})
    target.write("items", ({"item_id": i} for i in ids), pa.schema([("item_id", pa.string())]))
    for modality, folder in found.items():
        if folder:
            target.write("vectors", _vectors(folder), VECTORS, modality)
            target.lines += ["", f"[encoders.{modality}]", f'model = "vectors/{modality}.parquet"']


def _folder(source: Source, names: tuple[str, ...]) -> Path | None:
    """The folder of a modality that has most vectors."""
    folders = [p for p in source.folder.rglob("*") if p.is_dir() and any(n in str(p.relative_to(source.folder)).lower() for n in names)]  # fmt: skip
    counted = {p: len(list(p.glob("*.npy"))) for p in folders}
    best = max(counted, key=lambda p: (counted[p], str(p)), default=None)
    return best if best and counted[best] else None


def _vectors(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.npy")):
        yield {"item_id": path.stem, "vector": np.load(path, allow_pickle=False).astype(np.float32).ravel().tolist()}


IMPORTER = Importer("ducho", "folders of Ducho's vectors", "<modality>_embeddings/.../<item>.npy, and a log (user, item, rating, time)", run)  # fmt: skip

"""The list of importers: a row each."""

from pathlib import Path

from pipelines.raw.importers import (
    amazon2023,
    ducho,
    goodreads,
    hm,
    lastfm,
    microlens,
    mind,
    movielens,
    recbole,
    retailrocket,
    steam,
    yelp,
)
from pipelines.raw.importers.base import DataSetError, Importer, Source, Target

IMPORTERS: dict[str, Importer] = {
    m.IMPORTER.name: m.IMPORTER
    for m in (
        movielens, amazon2023, microlens, hm, retailrocket, mind, yelp, lastfm, goodreads, steam, recbole, ducho,
    )
}  # fmt: skip


def import_set(name: str, source: Path, raw: Path) -> tuple[Path, dict[str, int]]:
    """Write a raw folder and its configuration from a data set as published.

    Returns:
        The configuration, and how many rows of each kind were written.

    Raises:
        DataSetError: the name is unknown, or the folder is not what the importer reads.
    """
    if name not in IMPORTERS:
        raise DataSetError(f"no importer '{name}'; there are {', '.join(IMPORTERS)}")
    for folder in (source.resolve(), raw.resolve()):
        if any(c in str(folder) for c in "*?["):
            raise DataSetError(f"no folder with *, ? or [ in its name can be read: {folder}; move it")
    target = Target(raw.resolve())
    target.raw.mkdir(parents=True, exist_ok=True)
    IMPORTERS[name].run(Source(source.resolve()), target)
    return target.config(), target.rows

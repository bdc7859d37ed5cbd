"""Pictures and sounds that come inside a table (Hugging Face's ``struct<bytes, path>``, binary columns), kept as files.

A file is named by its sha256, so that the same picture is kept once. Belongs here: bytes to a reference.
Does not: decoding them (``media``).
"""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.lake.folders import scratch
from pipelines.raw.cells import Cells, flat
from pipelines.raw.nested import is_list
from pipelines.raw.places import EMBEDDED, embedded_path


class Embedded:
    """Where bytes of tables are kept.

    Args:
        folder: made when the first is kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def kept(self, cells: Cells) -> Cells:
        """Cells with a reference wherever they held bytes; other cells as they are."""
        kind = flat(cells.array).type
        inner = kind.value_type if is_list(kind) else kind
        if not _holds_bytes(inner):
            return cells
        values = flat(cells.array).to_pylist()
        with scratch(self.folder, "bytes") as staging:
            references = [self._of_value(v, staging) for v in values]
        if any(isinstance(r, list) for r in references):
            return Cells(pa.array(references, pa.list_(pa.string())))
        return Cells(pa.array(references, pa.string()))

    def _of_value(self, value: Any, staging: Path) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return [r for v in value for r in [self._of_value(v, staging)] if r]
        if isinstance(value, dict):
            return self._keep(value["bytes"], staging) if value.get("bytes") else value.get("path")
        return self._keep(value, staging)

    def _keep(self, data: bytes, staging: Path) -> str:
        reference = EMBEDDED + hashlib.sha256(data).hexdigest()
        path = embedded_path(self.folder, reference)
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            (staging / path.name).write_bytes(data)
            (staging / path.name).replace(path)
        return reference


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _holds_bytes(kind.field(at).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))

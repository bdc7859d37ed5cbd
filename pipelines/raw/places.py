"""Where raw data lies: the root folder or bucket, and the places outside it that references may name.

Belongs here: finding files, staying inside. Does not: reading their rows (``files``), media (``media``).
"""

import glob
import re
import unicodedata
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote, urlsplit

FILE_DATE = re.compile(r"(?<!\d)(\d{4})-?(\d\d)-?(\d\d)(?!\d)")
EMBEDDED = "embedded://"  # before the sha256 of bytes that came inside a table


class RawError(ValueError):
    """A whole raw file or reference is refused.

    Args:
        reason: quarantine reason code.
        detail: expected and found.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class DataError(ValueError):
    """The data and the configuration do not fit; the night stops before it publishes anything.

    Args:
        problems: what is wrong, where, and what to write in the configuration; one a line.
    """

    def __init__(self, problems: list[str]):
        self.problems = problems
        lines = "\n".join(f"  - {p}" for p in problems)
        super().__init__(f"{len(problems)} problem(s) of the raw data, nothing was published\n{lines}")


class UnusualError(DataError):
    """What a night has made is not what it usually is; nobody has looked at it yet.

    Args:
        problem: which check says so, what it found, and what to do.
    """

    def __init__(self, problem: str):
        self.problems = [problem]
        ValueError.__init__(self, problem)


class RawPlace(NamedTuple):
    """Where raw data is; travels to workers, which make a ``RawStore`` of it."""

    root: str
    allowed_uris: tuple[str, ...] = ()
    embedded: str = ""


class RawStore:
    """The raw folder or bucket.

    Args:
        root: local folder or fsspec URI.
        allowed_uris: places outside the root that references may name, see ``is_below``.
        embedded: folder of the pictures and sounds that came inside tables.
    """

    def __init__(self, root: str, allowed_uris: Iterable[str] = (), embedded: str = ""):
        import fsspec

        self.fs, path = fsspec.core.url_to_fs(root)
        self.root = path.rstrip("/")
        self.allowed_uris, self.embedded = tuple(allowed_uris), embedded
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def below(self, path: str) -> list[str]:
        """All files at or below ``path`` (a folder, a file or a glob), hidden ones too, relative to the root."""
        full = f"{self.root}/{path}".rstrip("/").removesuffix("/.")
        pattern = f"{glob.escape(self.root)}/{path}"
        named = [full] if self.fs.exists(full) else self.fs.glob(pattern) if glob.has_magic(path) else []
        found = [f for hit in named for f in (self.fs.find(hit) if self.fs.isdir(hit) else [hit])]
        return sorted({str(p)[len(self.root) + 1 :] for p in found})

    def stamp(self, name: str) -> tuple[str, ...]:
        """What changes when a file's content does: size, time of change, inode or tag. First is the size in bytes."""
        try:
            fs, full = self.locate(name)
            info = fs.info(full)
        except (RawError, OSError):  # whoever reads it says why it cannot be
            return ("0",)
        facts = [info.get(k) for k in ("mtime", "ino", "ETag", "etag", "LastModified", "updated")]
        return (str(info.get("size") or 0), *(str(f) for f in facts if f is not None))

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return int(self.stamp(name)[0])

    def locate(self, reference: str) -> tuple[Any, str]:
        """Filesystem and path of a media reference.

        Raises:
            RawError: it leaves the raw folder, or its URI is not allowed.
        """
        if reference.startswith(EMBEDDED) and self.embedded:
            import fsspec

            return fsspec.filesystem("file"), str(embedded_path(Path(self.embedded), reference))
        if "://" in reference:
            if not any(is_below(reference, allowed) for allowed in self.allowed_uris):
                raise RawError("uri_not_allowed", f"'{reference[:200]}' is below none of paths.allowed_uris")
            import fsspec

            fs, path = fsspec.core.url_to_fs(reference)
            return fs, path
        for written in _spellings(reference):
            found = self._below_root(written)
            if self.fs.exists(found):
                return self.fs, found
        return self.fs, self._below_root(reference)

    def _below_root(self, reference: str) -> str:
        """Path of a reference below the root.

        Raises:
            RawError: it leaves the root.
        """
        parts = reference.replace("\\", "/").split("/")
        if reference.startswith("/") or ".." in parts or "\0" in reference or ":" in parts[0]:
            raise RawError("path_escapes_root", f"'{reference[:200]}' is not a path below the raw folder")
        full = f"{self.root}/{reference}"
        if self.is_local and not Path(full).resolve().is_relative_to(Path(self.root).resolve()):
            raise RawError("path_escapes_root", f"'{reference[:200]}' is a link out of the raw folder")
        return full

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the root for reading.

        Raises:
            RawError: it is a link out of the root, or cannot be opened.
        """
        fs, full = self.locate(name)
        try:
            return fs.open(full, "rb")
        except OSError as e:
            raise RawError("unreadable_file", f"{type(e).__name__}: {str(e)[:200]}") from e


def file_day(name: str) -> date | None:
    """Last date in a file's path (2026-03-01 or 20260301), or None."""
    for year, month, day in reversed(FILE_DATE.findall(name)):
        try:
            return date(int(year), int(month), int(day)) if 1990 <= int(year) < 2100 else None
        except ValueError:
            continue
    return None


def _spellings(reference: str) -> list[str]:
    """How the name of a file may be written on disk: as it is, then with slashes, without %20, composed, decomposed."""
    plain = [reference, reference.replace("\\", "/"), unquote(reference), unquote(reference.replace("\\", "/"))]
    forms = [unicodedata.normalize(form, name) for name in plain for form in ("NFC", "NFD")]
    return list(dict.fromkeys([*plain, *forms]))


def embedded_path(folder: Path, reference: str) -> Path:
    """File of bytes that came inside a table.

    Raises:
        RawError: the reference is not ``embedded://`` and a sha256.
    """
    sha = reference.removeprefix(EMBEDDED)
    if not re.fullmatch(r"[0-9a-f]{64}", sha):
        raise RawError("path_escapes_root", f"'{reference[:200]}' is not a path below the raw folder")
    return folder / sha[:2] / sha


def is_below(uri: str, allowed: str) -> bool:
    """Whether a URI names something in the place that an allowed one names: same scheme, same host, in its folder.

    Steps upwards (also percent-encoded, also behind ``?`` and ``#``, which are part of a name for all but web servers),
    links out of a local folder, chained protocols (``::``), user names and ports of another host never lead anywhere.
    """
    if "::" in uri or "\\" in uri or any(ord(c) < 32 for c in uri):
        return False
    try:
        urlsplit(uri)
    except ValueError:  # no library agrees with another on what it means
        return False
    (scheme, host, path), (here_scheme, here_host, folder) = _parts_of(uri), _parts_of(allowed)
    if (scheme, host) != (here_scheme, here_host) or path[: len(folder)] != folder:
        return False
    if ".." in unquote(unquote("/".join(path))).replace("?", "/").replace("#", "/").split("/"):
        return False
    local = scheme in ("file", "local")
    return not local or Path("/", *path).resolve().is_relative_to(Path("/", *folder).resolve())


def _parts_of(uri: str) -> tuple[str, str, list[str]]:
    """Scheme, host and steps of the path as they are written, without empty ones."""
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    return scheme.lower(), host.lower(), [step for step in path.split("/") if step not in ("", ".")]

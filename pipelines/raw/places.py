"""Where raw data lies: the root folder or bucket, and the places outside it that references may name.

Belongs here: finding files, staying inside. Does not: reading their rows (``files``), media (``media``).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote, urlsplit


class RawError(ValueError):
    """A whole raw file or reference is refused.

    Args:
        reason: quarantine reason code.
        detail: expected and found.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class RawPlace(NamedTuple):
    """Where raw data is; travels to workers, which make a ``RawStore`` of it."""

    root: str
    allowed_uris: tuple[str, ...] = ()


class RawStore:
    """The raw folder or bucket.

    Args:
        root: local folder or fsspec URI.
        allowed_uris: places outside the root that references may name, see ``is_below``.
    """

    def __init__(self, root: str, allowed_uris: Iterable[str] = ()):
        import fsspec

        self.fs, path = fsspec.core.url_to_fs(root)
        self.root = path.rstrip("/")
        self.allowed_uris = tuple(allowed_uris)
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def files(self, path: str) -> list[str]:
        """Files at or below ``path``, relative to the root, in order of name; hidden ones are skipped."""
        full = f"{self.root}/{path}".rstrip("/").removesuffix("/.")
        if not self.fs.exists(full):
            return []
        found = self.fs.find(full) if self.fs.isdir(full) else [full]
        names = [str(p)[len(self.root) + 1 :] for p in found]
        return sorted(n for n in names if not any(part.startswith((".", "_")) for part in n.split("/")))

    def locate(self, reference: str) -> tuple[Any, str]:
        """Filesystem and path of a media reference.

        Raises:
            RawError: it leaves the raw folder, or its URI is not allowed.
        """
        if "://" in reference:
            if not any(is_below(reference, allowed) for allowed in self.allowed_uris):
                raise RawError("uri_not_allowed", f"'{reference[:200]}' is below none of paths.allowed_uris")
            import fsspec

            fs, path = fsspec.core.url_to_fs(reference)
            return fs, path
        parts = reference.replace("\\", "/").split("/")
        if reference.startswith("/") or ".." in parts or "\0" in reference or ":" in parts[0]:
            raise RawError("path_escapes_root", f"'{reference[:200]}' is not a path below the raw folder")
        full = f"{self.root}/{reference}"
        if self.is_local and not Path(full).resolve().is_relative_to(Path(self.root).resolve()):
            raise RawError("path_escapes_root", f"'{reference[:200]}' is a link out of the raw folder")
        return self.fs, full

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the root for reading.

        Raises:
            RawError: it is a link out of the root.
        """
        fs, full = self.locate(name)
        return fs.open(full, "rb")


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

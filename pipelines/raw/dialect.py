"""How a text file is written: encoding, delimiter, quotes; found in its first bytes.

Belongs here: what a sample of bytes or lines shows. Does not: our columns (``shape``), reading records (``delimited``).
"""

import codecs
import csv
import re
from collections.abc import Callable

from pipelines.raw.places import RawError, RawStore

HEAD_BYTES = 1 << 20
EDGES = 6  # broken characters that may come from where samples begin and end
STRAY = 3  # broken characters that may be bad rows
NO_TEXT = "not text: the file is binary, and of no format that is known here"
SAY_ENCODING = 'if it is text, say its encoding in the configuration, such as encoding = "cp1251", "gbk" or "shift_jis"'
ALPHABET = 8  # different letters, which a row of the same sign has not
DELIMITERS = (",", ";", "\t", "::", "|", "\x01")


def elsewhere(store: RawStore, name: str, packed: str) -> bytes:
    """Some bytes from the middle and the end of a plain file, because accents may come late."""
    size = store.size(name)
    if packed or size <= HEAD_BYTES:
        return b""
    found = b""
    with store.open(name) as f:
        for at in (size // 2, size - (1 << 16)):
            f.seek(max(HEAD_BYTES, at))
            found += f.read(1 << 16)
    return found


def encoding_of(head: bytes, more: bytes) -> str:
    """utf-8, utf-16 or cp1252.

    UTF-8 is meant where most of its sequences are right; a few broken bytes in it are bad rows, not another encoding.

    Raises:
        RawError: it is no text, or text of another encoding, which cannot be told from others like it.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and len(head) % 2 == 0:
        try:
            codecs.getincrementaldecoder("utf-16")("strict").decode(head)
            return "utf-16"
        except UnicodeDecodeError:
            pass
    text = head.rstrip(b"\0")  # a writer that crashed leaves a tail of zeros
    head = text if text and text.count(0) == 0 else head
    zeros = head.count(0)
    if zeros > len(head) // 4:
        for encoding, at in (("utf-16-le", 1), ("utf-16-be", 0)):
            if head[at::2].count(0) > len(head) // 4 and head[1 - at :: 2].count(0) * 10 < zeros:
                return encoding
    if zeros > len(head) // 100:
        raise RawError("unsupported_format", NO_TEXT)
    sample = head + more
    good = len(re.findall(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}", sample))
    broken = sample.decode("utf-8", "replace").count("\ufffd") - sample.count(b"\xef\xbf\xbd")
    letters = len(re.findall(rb"[A-Za-z][\xc0-\xff]|[\xc0-\xff][A-Za-z]", sample))  # of a Western word
    if broken > good and (broken > (EDGES if more else STRAY) or (not good and letters >= broken)):
        printable = sum(sample.count(b) for b in range(0x80, 0xA0) if b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D))
        if sum(sample.count(b) for b in range(0x01, 0x09)) > len(sample) // 100 or printable > len(sample) // 4:
            raise RawError("unsupported_format", f"{NO_TEXT}; {SAY_ENCODING}")
        runs, high = (b"".join(re.findall(rb"[\x80-\xff]{%d,}" % n, sample)) for n in (4, 1))
        if 2 * len(runs) > len(high) and len(set(high)) >= ALPHABET:  # no Western word is written so
            raise RawError("unknown_encoding", f"the text is of an alphabet that is not Western; {SAY_ENCODING}")
        return "cp1252"
    return "utf-8"


def delimiter_of(lines: list[str], named: Callable[[list[str]], int]) -> str:
    """The delimiter that finds most of our columns in the first line, then the one that cuts all lines alike.

    Args:
        lines: the first ones.
        named: how many of our columns a header has.
    """

    def merit(delimiter: str) -> tuple[int, float, int]:
        header = [c.strip() for c in split_line(lines[0], delimiter, True, False)]
        widths = [len(split_line(line, delimiter, True, False)) for line in lines[:100]]
        usual = max(set(widths), key=widths.count)
        return named(header), widths.count(usual) / len(widths) if usual > 1 else 0.0, -DELIMITERS.index(delimiter)

    return max(DELIMITERS, key=merit)


def is_quoted(lines: list[str], delimiter: str) -> bool:
    """Whether double quotes enclose fields. In tab-separated text they are characters unless all lines show it."""
    if len(delimiter) > 1:
        return False
    if delimiter == "," or not any('"' in line for line in lines):
        return delimiter in (",", ";", "|")
    opening = [f for line in lines for f in line.split(delimiter) if f.startswith('"')]
    closed = [f for f in opening if len(f) > 1 and f.endswith('"')]
    if delimiter in (";", "|"):
        return bool(opening)
    quoted_header = all(f.startswith('"') and f.endswith('"') for f in lines[0].split(delimiter))
    return bool(opening) and len(closed) == len(opening) and quoted_header


def is_escaped(text: str, delimiter: str) -> bool:
    """Whether a backslash stands before a double quote within fields, where others write it twice."""
    inner = f'[^{re.escape(delimiter[0])}\\r\\n"]'
    return bool(re.search(rf'\\"{inner}', text)) and not re.search(f'{inner}""{inner}', text)


def split_line(line: str, delimiter: str, quoting: bool, escape: bool) -> list[str]:
    """Fields of one line."""
    if not quoting or len(delimiter) > 1 or '"' not in line:
        return line.rstrip("\r\n").split(delimiter)
    try:
        rows = list(csv.reader([line], delimiter=delimiter, escapechar="\\" if escape else None))
    except csv.Error:
        return line.rstrip("\r\n").split(delimiter)
    return rows[0] if rows else []

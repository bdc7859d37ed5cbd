"""JSON values that do not stand a line each, as a stream is decoded: elements of arrays, of a list within an object.

Belongs here: where a value begins and ends, going on behind a broken one. Does not: what is in a value (``documents``).
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from pipelines.raw.containers import Unpacked
from pipelines.raw.lines import Reject
from pipelines.raw.places import RawError
from pipelines.raw.shape import Shape

MAX_VALUE_CHARACTERS = 1 << 26  # of one value that is decoded at once
CHUNK_BYTES = 1 << 20
NEXT_OBJECT = re.compile(r'\}([\s,\0]*)\{(?=\s*")')
LONGEST_GAP = 1_000  # characters between two objects
CLOSED = re.compile(r"\][\s\]}\0]*$")
DIGITS = 18  # more than a float64 holds; longer integers stay texts


def decoder_of_values() -> json.JSONDecoder:
    """A decoder that keeps the digits of long integers."""
    return json.JSONDecoder(
        parse_int=lambda digits: int(digits) if len(digits) < DIGITS else digits, object_pairs_hook=_first_of_each
    )


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of equal keys with the first, as DuckDB has it."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


class Text:
    """Text of a stream as it is decoded, of which what is behind is forgotten."""

    def __init__(self, stream: IO[bytes] | Unpacked, encoding: str):
        self.stream, self.decoder = stream, codecs.getincrementaldecoder(encoding)("replace")
        self.text, self.at, self.done = "", 0, False
        self.passed = 0  # characters, for whoever counts them
        self.skipped = ""
        self.more(CHUNK_BYTES)
        self.text = self.text.removeprefix("\ufeff")

    def more(self, characters: int) -> bool:
        """Have so many characters ahead, as far as the stream has them; whether there are new ones."""
        parts, ahead = [self.text[self.at :]], len(self.text) - self.at
        before = ahead
        while not self.done and ahead < characters:
            data = self.stream.read(CHUNK_BYTES)
            self.done = not data
            parts.append(self.decoder.decode(data, final=self.done))
            ahead += len(parts[-1])
        self.text, self.at = "".join(parts), 0
        return ahead > before

    def move(self, characters: int) -> None:
        """Go on so many characters."""
        self.at += characters
        self.passed += characters

    def next(self) -> str:
        """The next character that is no blank and no comma, nothing at the end; what is before it is ``skipped``."""
        self.skipped = ""
        if self.at > CHUNK_BYTES:  # an error counts the lines of all the text
            self.text, self.at = self.text[self.at :], 0
        while True:
            start = self.at
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n,\0":
                self.at += 1
            self.skipped += self.text[start : self.at]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more(CHUNK_BYTES):
                return ""

    def value(self, decoder: json.JSONDecoder) -> tuple[Any, int]:
        """The value that begins here, and where it ends.

        Raises:
            ValueError: it is none, or longer than is allowed.
            RecursionError: it is nested too deeply.
        """
        wanted = len(self.text) - self.at + CHUNK_BYTES
        while True:
            try:
                value, after = decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as e:
                goes_on = e.msg.startswith("Unterminated string") or e.pos + 16 > len(self.text)
                if not goes_on or wanted > MAX_VALUE_CHARACTERS or not self.more(wanted):
                    raise
            else:
                if after < len(self.text) or isinstance(value, dict | list | str) or not self.more(wanted):
                    return value, after
            wanted *= 2

    def to_next(self, separator: str, like: dict[str, Any], decoder: json.JSONDecoder) -> bool:
        """Go to where an object begins that has keys of another, or is broken too; whether one does.

        Between lines one key in common is enough; within a line, where it may stand in a list of the broken one, most.
        """
        while found := self._next_object():
            self.at = found.end() - 1
            try:
                value, _ = self.value(decoder)
            except (ValueError, RecursionError):  # counts as well
                return True
            common = len(value.keys() & like.keys()) if isinstance(value, dict) else 0
            if ("\n" in separator and found[1] == separator and common) or 2 * common > len(like):
                return True
        return False

    def _next_object(self) -> re.Match[str] | None:
        while True:
            if found := NEXT_OBJECT.search(self.text, self.at):
                return found
            self.at = max(self.at, len(self.text) - LONGEST_GAP)
            if not self.more(LONGEST_GAP + CHUNK_BYTES):
                return None

    def is_closed(self) -> bool:
        """Whether a list is closed at the end, where the text has been read to it."""
        return bool(CLOSED.search(self.text[-LONGEST_GAP:]))


def values_of(text: Text, shape: Shape, rejects: list[Reject]) -> Iterator[tuple[int, Any]]:
    """(number, value) of a stream of values, of the elements of arrays, or of those of the list at ``records``.

    Behind a value that is broken, reading goes on where one begins like the others.

    Raises:
        RawError: nothing begins like that, or an array is not closed.
    """
    decoder, number, separator, last = decoder_of_values(), 0, "", None
    text.move(shape.records_at)
    is_open = bool(shape.records_at)
    while found := text.next():
        if found == "[" and not is_open or found == "]" and is_open:
            is_open = not is_open
            text.move(1)
            if shape.records_at:
                return
            continue
        number += 1
        separator = separator or (text.skipped if last else "")
        try:
            value, after = text.value(decoder)
        except (ValueError, RecursionError) as e:
            problem = f"value {number}: {str(e)[:150]}"
            goes_on = last is not None and text.to_next(separator, last, decoder)
            if not goes_on and not (last and is_open and text.is_closed()):  # else it is the last
                what = f"{problem}; nothing behind it can be told apart, so the rest is not read"
                raise RawError("broken_json", what) from e
            rejects.append(Reject(number, "bad_json", problem))
            if not goes_on:
                return
            continue
        text.move(after - text.at)
        last = value if isinstance(value, dict) else last
        yield number, value
    if is_open:
        raise RawError("broken_json", f"the list is not closed behind value {number}: the file is cut off")

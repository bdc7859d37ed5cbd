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
FIRST_KEY = re.compile(r'\{\s*"[^"\\]*"')
DIGITS = 18  # more than a float64 holds; longer integers stay texts


def decoder_of_values() -> json.JSONDecoder:
    """A decoder that keeps the digits of long integers."""
    return json.JSONDecoder(parse_int=lambda digits: int(digits) if len(digits) < DIGITS else digits)


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

    def to_next(self, mark: str, like: Any, decoder: json.JSONDecoder) -> bool:
        """Go behind the brace of a mark, to where a value comes that has most keys of another; whether one does."""
        while self._to(mark):
            self.move(1)
            self.next()
            try:
                value, _ = self.value(decoder)
            except (ValueError, RecursionError):  # broken too, and counts
                return True
            if isinstance(value, dict) and 2 * len(value.keys() & like.keys()) > len(like):
                return True
        return False

    def _to(self, mark: str) -> bool:
        while (found := self.text.find(mark, self.at)) < 0:
            self.at = max(self.at, len(self.text) - len(mark))
            if not self.more(len(mark) + CHUNK_BYTES):
                return False
        self.at = found
        return True


def values_of(text: Text, shape: Shape, rejects: list[Reject]) -> Iterator[tuple[int, Any]]:
    """(number, value) of a stream of values, of the elements of arrays, or of those of the list at ``records``.

    Behind a value that is broken, reading goes on where one begins like the others.

    Raises:
        RawError: nothing begins like that, or an array is not closed.
    """
    decoder, number, opening, separator, last = decoder_of_values(), 0, "", "", None
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
        separator = separator or (text.skipped if opening else "")
        try:
            value, after = text.value(decoder)
        except (ValueError, RecursionError) as e:
            problem = f"value {number}: {str(e)[:150]}"
            if not opening or not separator or not text.to_next("}" + separator + opening, last, decoder):
                what = f"{problem}; nothing behind it can be told apart, so the rest is not read"
                raise RawError("broken_json", what) from e
            rejects.append(Reject(number, "bad_json", problem))
            continue
        first_key = FIRST_KEY.match(text.text, text.at)
        opening = first_key[0] if first_key else ""
        text.move(after - text.at)
        last = value
        yield number, value
    if is_open:
        raise RawError("broken_json", f"the list is not closed behind value {number}: the file is cut off")

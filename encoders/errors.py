"""What can go wrong with an encoder, a device or a payload."""

import re


class EncoderError(RuntimeError):
    """An encoder cannot be loaded or run; the message says which one, and what to do."""


class DecodeError(ValueError):
    """One payload cannot be used; it is quarantined and the rest of the night goes on.

    Args:
        reason: short code for the quarantine table.
        detail: what was found.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def cause_of(error: Exception) -> str:
    """An error of a decoder in one line, without memory addresses: the same file gives the same text every night."""
    text = re.sub(r"<?_io\.BytesIO object at 0x[0-9a-f]+>?", "the file", str(error))
    return f"{type(error).__name__}: {re.sub(r'0x[0-9a-f]{6,}', '0x...', text)[:200]}"


class DeviceError(RuntimeError):
    """The configured device is not there; the message says what to do."""

"""Numbers as people write them: groups of thousands, decimal commas, currencies, percent, brackets for a minus.

Belongs here: one cell's number, and what a sample says of the decimal sign. Does not: ids and other texts (``cells``).
"""

import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.raw.cells import Cells, cast_texts, clean, flat, is_text

# most traded ones of ISO 4217, and what people write for them
CODES = (
    "USD EUR GBP JPY CNY RMB INR AUD CAD CHF HKD SGD SEK NOK DKK KRW NZD MXN BRL ZAR TRY RUB PLN CZK HUF THB IDR ILS "
    "AED SAR TWD MYR PHP VND RON BGN ARS CLP COP PEN EGP NGN KES PKR BDT UAH KZT"
)
CURRENCY = rf"(?:\p{{Sc}}|[A-Z]{{1,3}}\$|(?i:{'|'.join(CODES.split())}|kr\.?|fr\.?|rs\.?|zł|kč|ft|lei|лв\.?|руб\.?|tl))"
GROUP = r"\d{1,3}"
SPACED = rf"^[-+]?{GROUP}([ ']\d{{3}})+([.,]\d*)?$"
INDIAN = r"^[-+]?\d{1,2}(,\d{2})+,\d{3}(\.\d*)?$"  # 1,25,000.00
SHOWS = {  # the decimal sign -> what only a number with it looks like
    sign: rf"^[-+]?(({GROUP}([{group} ']\d{{3}})+|\d+){sign}(\d{{1,2}}|\d{{4,}})"
    rf"|0{sign}\d+|{GROUP}({group}\d{{3}})+{sign}\d+|{GROUP}({group}\d{{3}}){{2,}})$"
    for sign, group in ((r"\.", ","), (",", r"\."))
}
SHOWS_NEITHER = r"^[-+]?[1-9]\d{0,2}[.,]\d{3}$"  # 1.299


def numbers(cells: Cells, comma: bool) -> tuple[pa.Array, pa.Array]:
    """Finite float64 of each cell, null where there is none; and which cells hold something else.

    Args:
        cells: of any type; texts may be ``$1,299.00``, ``1 299,90 kr``, ``(12.50)``, ``5%``.
        comma: whether texts have a decimal comma.
    """
    array = flat(cells.array)
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        found = array.cast(pa.float64(), safe=False)
        given = pc.and_(pc.is_valid(found), pc.invert(pc.fill_null(pc.is_nan(found), True)))
    elif pa.types.is_boolean(kind):
        found, given = array.cast(pa.int8()).cast(pa.float64()), pc.is_valid(array)
    elif not is_text(kind):
        return pa.nulls(len(array), pa.float64()), pc.is_valid(array)
    else:
        text = clean(array.cast(pa.string()))
        given = pc.and_(pc.is_valid(text), pc.not_equal(pc.utf8_lower(pc.fill_null(text, "")), "nan"))
        found = cast_texts(text, "DOUBLE")
        if pc.any(pc.and_(given, pc.is_null(found))).as_py() or (comma and pc.any(pc.match_substring(text, "."))):
            found = cast_texts(_english(_bare(text), comma), "DOUBLE")
            percent = pc.fill_null(pc.match_substring_regex(text, r"[%\x{FF05}]\)?$"), False)
            found = pc.if_else(percent, pc.divide(found, 100.0), found)
    found = pc.if_else(pc.fill_null(pc.is_finite(found), False), found, pa.scalar(None, pa.float64()))
    return found, pc.and_(given, pc.is_null(found))


def decimal_of(sample: pa.Array) -> str:
    """``,`` or ``.``, whichever more numbers of a sample can only have; ``?`` where 1.299 may be either."""
    bare = _bare(sample)
    points, commas = (pc.sum(pc.match_substring_regex(bare, SHOWS[sign])).as_py() or 0 for sign in (r"\.", ","))
    if points or commas:
        return "," if commas > points else "."
    return "?" if pc.any(pc.match_substring_regex(bare, SHOWS_NEITHER)).as_py() else ""


def _bare(text: pa.Array) -> pa.Array:
    """Numbers without currency, percent, blanks between groups; other digits and minus signs as ASCII has them."""
    rows = [_ascii(t) for t in text.to_pylist()]
    bare = pc.replace_substring_regex(pa.array(rows, pa.string()), r"^\((.*)\)$", r"-\1")
    bare = pc.replace_substring_regex(bare, rf"^([-+]?)\s*{CURRENCY}\s*", r"\1")
    bare = pc.replace_substring_regex(bare, rf"\s*(?:{CURRENCY}|%)$", "")
    spaced = pc.match_substring_regex(bare, SPACED)
    return pc.if_else(spaced, pc.replace_substring_regex(bare, "[ ']", ""), bare)


def _ascii(text: str | None) -> str | None:
    if text is None or text.isascii():
        return text
    found = "".join(str(unicodedata.decimal(c, c)) for c in text)  # not NFKC alone, in which 5² is 52
    if any(c.isdigit() and not c.isdecimal() for c in found):
        return text
    return unicodedata.normalize("NFKC", found).replace("\u2212", "-").replace("\u2019", "'")


def _english(bare: pa.Array, comma: bool) -> pa.Array:
    """Numbers with a point and no groups; what is none stays as it is."""
    group, sign = (r"\.", ",") if comma else (",", r"\.")
    grouped = pc.match_substring_regex(bare, rf"^[-+]?[1-9]\d{{0,2}}({group}\d{{3}})+({sign}\d*)?$")
    if not comma:
        grouped = pc.or_(grouped, pc.match_substring_regex(bare, INDIAN))
    bare = pc.if_else(grouped, pc.replace_substring_regex(bare, group, ""), bare)
    return pc.replace_substring(bare, ",", ".") if comma else bare

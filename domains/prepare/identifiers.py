"""What must not be found again: every identifier that the sources hold, as sequences of words to look for.

Headers are read whole, private tags and nested sequences included; so are the names of files and folders, and what a video container says of
itself. A value becomes words in lower case, so that "DOE^JANE", "Doe, Jane" and "doe_jane" are the same two words.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from domains.errors import MediaError
from domains.media import content_files, sniff
from domains.prepare.afar import at_hand
from domains.prepare.find import Source
from domains.prepare.privacy import age, manufacturer, stem

Words = tuple[str, ...]

# Dotted numbers (UIDs, decimals) are one word: 0.778899 does not hold the number 778899.
WORD = re.compile(r"\d+(?:\.\d+)+|[^\W_]+")
PRINTABLE = re.compile(rb"[\x20-\x7e\x80-\xff]{4,}")
SHORTEST_NAME, SHORTEST_NUMBER, SHORTEST_VALUE = (
    3,
    6,
    4,
)  # letters of a name, digits of a number, characters of anything else
LONGEST_VALUE = 200  # characters of a value that is looked for as a whole
STANDARD_UIDS = "1.2.840.10008."
KEPT = {"PatientSex", "HeartRate", "PatientAge", "Manufacturer"}  # the allow-list of privacy.identity
BINARY = {"OB", "OW", "OF", "OD", "OL", "OV"}
NUMBERS = {"IS", "DS", "SL", "SS", "UL", "US", "SV", "UV", "FL", "FD"}


def words(text: str) -> list[str]:
    """Words in order, in one spelling: lower case, accents taken off."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return WORD.findall(plain.casefold())


def of_source(source: Source, scratch: Path) -> Iterator[tuple[str, Words]]:
    """(where it stands, words) of every identifier of one source: path, header, container. scratch: for what must be unpacked or fetched.

    Raises MediaError where the header cannot be read to its end (after the identifiers of the path).
    """
    parts = PurePosixPath(source.relative).parts
    if source.remote is not None:
        parts += tuple(PurePosixPath(entry.relative).name for entry in source.remote.entries)
    elif source.path.is_dir():
        parts += tuple(path.name for path in content_files(source.path))
    for part in parts:
        for name in {part, stem(part)}:
            yield from of_value("file or folder name", "LO", name)
    with at_hand(source, scratch) as path:
        yield from _of_file(path)


def _of_file(path: Path) -> Iterator[tuple[str, Words]]:
    kind = sniff(path)
    if kind == "dicom":
        yield from _of_dicom(path)
    elif kind == "video":
        yield from _of_video(path)


def of_value(where: str, vr: str, value: str) -> Iterator[tuple[str, Words]]:
    """What one value gives to look for. Nothing for what identifies nobody: short numbers, standard UIDs."""
    value = value.strip(" \0\t\r\n")
    found = words(value)
    if not found:
        return
    if vr == "UI":
        if not value.startswith(STANDARD_UIDS) and len(value) >= SHORTEST_VALUE:
            yield where, (value.casefold(),)
        return
    if vr in {"DA", "DT"} and (date := re.match(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)", value)):
        year, month, day = date.groups()
        for spelling in (
            f"{year}{month}{day}",
            f"{year}-{month}-{day}",
            f"{day}.{month}.{year}",
            f"{day}/{month}/{year}",
        ):
            yield where, tuple(words(spelling))
        return
    if vr == "PN":
        yield from ((where, (name,)) for name in found if len(name) >= SHORTEST_NAME)
    long = len(value) > LONGEST_VALUE  # a maker's private table: its offsets and counters are nobody's number
    yield from ((where, (word,)) for word in found if _is_number(word, SHORTEST_NUMBER + 2 * long))
    if long or vr in NUMBERS or vr == "TM":
        return
    if sum(map(len, found)) >= SHORTEST_VALUE:
        yield where, tuple(found)
        if len(found) > 1 and vr != "CS":
            yield where, ("".join(found),)


def _is_number(word: str, digits: int) -> bool:
    """A number long enough to be somebody's, letters before or after it included: MRN778899."""
    return sum(letter.isdigit() for letter in word) >= digits and "." not in word


def _of_dicom(path: Path) -> Iterator[tuple[str, Words]]:
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            elements = [*getattr(data, "file_meta", []), *data.iterall()]
        except Exception as error:  # whatever a damaged header does to the parser
            raise MediaError(path, f"header cannot be read whole ({error.__class__.__name__})") from None
        broken = 0
        for element in elements:
            try:
                where = f"{element.keyword or 'private tag'} {element.tag}"
                tables = element.VR in BINARY and not element.tag.is_private  # palettes and the like
                if element.VR == "SQ" or tables or _is_kept(element.keyword, str(element.value)):
                    continue
                texts = list(_texts(element.value))
            except Exception:
                broken += 1
                continue
            for text in texts:
                yield from of_value(where, element.VR, text)
        if broken:
            raise MediaError(path, f"{broken} elements of its header cannot be read")


def _is_kept(keyword: str, value: str) -> bool:
    """Whether a value may stand in the manifest as it is. An age of 90 and over may not; nor may a maker that is no known name."""
    if keyword == "PatientAge":
        return age(value) != "090Y" or value.strip() == "090Y"
    if keyword == "Manufacturer":
        return manufacturer(value).casefold() == value.strip().casefold()
    return keyword in KEPT


def _texts(value: object) -> Iterator[str]:
    """The texts of an element's value: one, several, or those readable in bytes."""
    if value is None:
        return
    if isinstance(value, bytes):
        for run in PRINTABLE.findall(value):
            yield run.decode("utf-8", "replace")
    elif isinstance(value, Iterable) and not isinstance(value, str) and not hasattr(value, "components"):
        for one in value:
            yield from _texts(one)
    else:
        yield str(value)


def _of_video(path: Path) -> Iterator[tuple[str, Words]]:
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            said = [container.metadata, *(stream.metadata for stream in container.streams)]
            pairs = [(name, value) for metadata in said for name, value in metadata.items()]
    except (OSError, ValueError, MemoryError) as error:  # av's own errors are OSErrors and ValueErrors
        raise MediaError(path, f"container cannot be opened ({error.__class__.__name__})") from None
    for name, value in pairs:
        if name not in {
            "major_brand",
            "compatible_brands",
            "minor_version",
            "encoder",
            "handler_name",
            "vendor_id",
            "language",
        }:
            vr = "DT" if re.match(r"\d{4}-\d\d-\d\d", value) else "LO"
            yield from of_value(f"container tag '{name}'", vr, value)


@cache
def own_words() -> frozenset[str]:
    """Words of vfm's own files: what it writes of itself says nothing of a patient."""
    import domains

    root = Path(domains.__file__).resolve().parents[1]
    found: set[str] = set()
    for top in ("domains", "recipes", "vfm_cli"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in {".py", ".yaml", ".html", ".css", ".js", ".json"}:
                found.update(words(path.read_text(encoding="utf-8")))
    return frozenset(found)


def is_checkable(needle: Words) -> bool:
    """Whether finding it would mean anything: not if all of its words are vfm's own, or numbers that are short together."""
    digits = sum(len(word) for word in needle if word.isdigit())
    return digits >= SHORTEST_NUMBER or not all(word in own_words() or word.isdigit() for word in needle)

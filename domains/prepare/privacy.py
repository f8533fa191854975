"""What may leave a header, and under which name: keyed pseudonyms and a short allow-list. All else stays behind."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domains.errors import ConfigError, StorageError

KEY_BYTES = 32

# Makers as people know them; a maker that is not listed becomes "other", since the tag is free text.
MANUFACTURERS = {
    "GE": ("ge ", "ge-", "gems", "general electric", "vingmed", "kretz"),
    "Philips": ("philips", "atl", "agilent", "hewlett"),
    "Siemens": ("siemens", "acuson"),
    "Canon": ("canon", "toshiba"),
    "Samsung": ("samsung", "medison"),
    "Fujifilm": ("fuji", "hitachi", "aloka", "sonosite", "visualsonics"),
    "Mindray": ("mindray", "zonare"),
    "Esaote": ("esaote",),
    "TomTec": ("tomtec",),
    "Terason": ("terason",),
    "Butterfly": ("butterfly",),
    "Clarius": ("clarius",),
    "vfm": ("vfm",),
}


def key_path(path: Path | None = None) -> Path:
    """Where the key lies: `path`, else $VFM_KEY, else ~/.config/vfm/pseudonym.key."""
    chosen = path or os.environ.get("VFM_KEY") or "~/.config/vfm/pseudonym.key"
    return Path(chosen).expanduser()


def load_key(path: Path | None = None, create: bool = False, outside: Path | None = None) -> bytes:
    """The secret that pseudonyms are made with; whoever holds it can tell whether a known patient is in the data.

    path: see `key_path`. create: make one (mode 0600) where there is none. outside: the output folder, in which a key
    must not lie.
    Raises ConfigError where the key is missing, readable by others, not a key, or inside `outside`; StorageError where
    it cannot be written.
    """
    place = key_path(path)
    if outside is not None and place.resolve().is_relative_to(outside.resolve()):
        raise ConfigError(
            "the pseudonym key must not lie inside the output", where=place, do="Keep it elsewhere: --key FILE"
        )
    if create and not place.exists():
        _create(place)
    try:
        mode, text = place.stat().st_mode, place.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise ConfigError(
            "no pseudonym key", where=place, do="Give the one used by 'vfm data prepare': --key FILE"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the pseudonym key cannot be read ({error.__class__.__name__})", where=place) from None
    if os.name == "posix" and mode & 0o077:
        raise ConfigError("the pseudonym key can be read by others", where=place, do=f"Run: chmod 600 {place}")
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * KEY_BYTES}}}", text):
        do = f"Expected {2 * KEY_BYTES} hexadecimal digits"
        raise ConfigError("not a pseudonym key", where=place, do=do)
    return bytes.fromhex(text)


def _create(place: Path) -> None:
    """Write a new key whole or not at all; where another process was faster, its key stands."""
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(draft, place)
    except OSError as error:
        do = "Choose another place: --key FILE, or $VFM_KEY"
        raise StorageError(f"the pseudonym key cannot be written ({error.strerror})", where=place, do=do) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


class Pseudonyms:
    """Names that are the same for the same thing and lead back to nothing without the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def token(self, kind: str, value: str) -> str:
        """16 base32 characters (80 bits of HMAC-SHA-256), lower case; `kind` keeps a patient and a study apart."""
        text = unicodedata.normalize("NFC", value).strip(" \0\t\r\n")
        digest = hmac.digest(self._key, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), "sha256")
        return base64.b32encode(digest[:10]).decode("ascii").lower()

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart and gives neither away; kept in prepared.json."""
        return hashlib.sha256(b"vfm pseudonym key\0" + self._key).hexdigest()[:16]


def stem(name: str) -> str:
    """A file name without its extension. Numbers after a dot are no extension: 1.2.840.55 is a whole UID."""
    base, dot, suffix = name.rpartition(".")
    return base if dot and base and len(suffix) <= 5 and re.search(r"[A-Za-z]", suffix) and suffix.isalnum() else name


@dataclass(frozen=True)
class Identity:
    """What is kept of a header: closed vocabularies and numbers, no free text.

    manufacturer: a known maker, "other" or "". age: DICOM age string such as 060Y, 090Y for 90 and over, or "". sex: F,
    M, O or "".
    heart_rate: beats a minute, None where absent or impossible.
    """

    manufacturer: str = ""
    age: str = ""
    sex: str = ""
    heart_rate: float | None = None


def identity(header: Any) -> Identity:
    """The allow-list, applied to a pydicom Dataset (or to the empty mapping of a video file)."""
    return Identity(
        manufacturer=manufacturer(text(header, "Manufacturer")),
        age=age(text(header, "PatientAge")),
        sex=sex(text(header, "PatientSex")),
        heart_rate=heart_rate(text(header, "HeartRate")),
    )


def text(header: Any, keyword: str) -> str:
    """A tag as stripped text, "" where it is absent or cannot be read."""
    try:
        value = header.get(keyword, "")
    except Exception:  # a header may hold anything, and pydicom parses a value when it is first looked at
        return ""
    return "" if value is None else str(value).strip(" \0\t\r\n")


def manufacturer(value: str) -> str:
    """A maker's usual short name; "other" for any other text, "" for none."""
    words = value.lower().strip() + " "
    for name, signs in MANUFACTURERS.items():
        if any(re.search(rf"(?<![a-z]){re.escape(sign)}", words) for sign in signs):
            return name
    return "other" if value.strip() else ""


def age(value: str) -> str:
    """A DICOM age string (three digits and D, W, M or Y); from 90 years on always 090Y; "" for anything else."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", value.strip().upper())
    if not found:
        return ""
    number, unit = int(found[1]), found[2]
    years = number / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[unit]
    return "090Y" if years >= 90 else f"{number:03d}{unit}"


def sex(value: str) -> str:
    """F, M, O (other) or ""."""
    letter = value.strip().upper()[:1]
    return letter if letter in {"F", "M", "O"} else ""


def heart_rate(value: str) -> float | None:
    """Beats a minute; None for what no heart does (zero means "not measured" on many devices)."""
    try:
        rate = float(value)
    except ValueError:
        return None
    return rate if 10 <= rate <= 400 else None

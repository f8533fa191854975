import stat
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from domains.errors import ConfigError, StorageError
from domains.prepare.privacy import Pseudonyms, age, heart_rate, identity, load_key, manufacturer, sex, stem

KEY = bytes(range(32))


def test_a_token_depends_on_key_kind_and_value_and_hides_all_three():
    names = Pseudonyms(KEY)
    token = names.token("patient", "MRN-1")
    assert len(token) == 16
    assert token == token.lower()
    assert set(token) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert token == Pseudonyms(KEY).token("patient", " MRN-1\0")  # DICOM pads with blanks and NUL
    others = {
        names.token("study", "MRN-1"),
        names.token("patient", "MRN-2"),
        Pseudonyms(b"x" * 32).token("patient", "MRN-1"),
    }
    assert len(others | {token}) == 4


def test_token_is_hmac_sha256_in_base32():
    # Computed apart from the code: HMAC-SHA-256(key, "patient\0A"), first ten bytes in base32.
    import base64
    import hashlib
    import hmac

    expected = base64.b32encode(hmac.new(KEY, b"patient\0A", hashlib.sha256).digest()[:10]).decode().lower()
    assert Pseudonyms(KEY).token("patient", "A") == expected


def test_a_key_is_made_once_readable_to_its_owner_only(tmp_path: Path):
    place = tmp_path / "deep" / "key"
    key = load_key(place, create=True)
    assert len(key) == 32
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert load_key(place, create=True) == key == load_key(place)
    assert [path.name for path in place.parent.iterdir()] == ["key"]


def test_the_key_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VFM_KEY", str(tmp_path / "from_environment"))
    key = load_key(create=True)
    assert load_key(tmp_path / "from_environment") == key


def test_a_key_is_refused_where_others_read_it_where_it_is_none_and_inside_the_output(tmp_path: Path):
    place = tmp_path / "out" / "key"
    with pytest.raises(ConfigError, match="no pseudonym key"):
        load_key(place)
    with pytest.raises(ConfigError, match="must not lie inside"):
        load_key(place, create=True, outside=tmp_path / "out")
    assert not place.exists()
    load_key(place, create=True)
    place.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(place)
    place.chmod(0o600)
    place.write_text("secret")
    with pytest.raises(ConfigError, match="not a pseudonym key"):
        load_key(place)


def test_a_key_that_cannot_be_written_is_a_storage_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        load_key(tmp_path / "file" / "key", create=True)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("045Y", "045Y"), ("45y", "045Y"), ("089Y", "089Y"), ("090Y", "090Y"), ("101Y", "090Y"), ("006M", "006M"),
     ("999M", "999M"), ("010D", "010D"), ("", ""), ("ninety", ""), ("1Y; DOE", "")],
)  # fmt: skip
def test_ages_of_ninety_and_over_become_one(given: str, kept: str):
    assert age(given) == kept


@pytest.mark.parametrize(
    ("given", "kept"),
    [("GE Vingmed Ultrasound", "GE"), ("GEMS Ultrasound", "GE"), ("Philips Medical Systems", "Philips"),
     ("ACUSON", "Siemens"), ("TOSHIBA_MEC_US", "Canon"), ("Images by Dr Doe", "other"), ("", "")],
)  # fmt: skip
def test_manufacturer_is_a_known_name_or_other(given: str, kept: str):
    assert manufacturer(given) == kept


def test_identity_keeps_four_things_and_no_text():
    header = Dataset()
    header.Manufacturer, header.PatientAge, header.PatientSex, header.HeartRate = (
        "Doe's own machine",
        "095Y",
        "Female",
        "0",
    )
    header.PatientName = "DOE^JANE"
    kept = identity(header)
    assert vars(kept) == {"manufacturer": "other", "age": "090Y", "sex": "F", "heart_rate": None}
    assert vars(identity({})) == {"manufacturer": "", "age": "", "sex": "", "heart_rate": None}
    assert sex("weiblich") == ""
    assert heart_rate("72.5") == 72.5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.avi", "a"),
        ("1.2.840.55.dcm", "1.2.840.55"),
        ("1.2.840.55", "1.2.840.55"),
        (".hidden", ".hidden"),
        ("a.b.mp4", "a.b"),
    ],
)
def test_stem_keeps_uids_whole(name: str, expected: str):
    assert stem(name) == expected

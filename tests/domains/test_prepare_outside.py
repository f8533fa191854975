"""Views of the room: told by colour, withheld with their neighbours, never passed on in doubt."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from source_factory import write_avi

from domains.base import Domain, RegionSettings, StoreSettings, load_domain
from domains.errors import ConfigError, DataError
from domains.media import open_reader
from domains.prepare.audit import audit
from domains.prepare.ingest import prepare
from domains.prepare.outside import FEWEST, INSIDE, OUTSIDE, Withheld, patches, tissue_share
from domains.store.prepared import Prepared
from domains.surgical.operations import OPERATIONS

TISSUE, DRAPE, GAUZE, TUBE, SKIN_LIGHT = (
    (150, 60, 50),
    (60, 110, 120),
    (235, 232, 228),
    (150, 152, 158),
    (226, 196, 178),
)
BODY = Domain(
    name="body", title="Body", out_of_body="exclude", region=RegionSettings(policy="endoscope"), store=StoreSettings(size=32, rate=1.0),
)  # fmt: skip


def plain(colour: tuple[int, int, int], share: float = 1.0, other: tuple[int, int, int] = DRAPE) -> np.ndarray:
    """(100, 100, 3): `share` of the rows in one colour, the rest in another."""
    frame = np.empty((100, 100, 3), np.uint8)
    frame[:] = other
    frame[: round(100 * share)] = colour
    return frame


def test_share_of_tissue_by_hand() -> None:
    assert [tissue_share(plain(colour)) for colour in (TISSUE, DRAPE, GAUZE, TUBE, SKIN_LIGHT)] == [1, 0, 0, 0, 0]
    assert tissue_share(plain(TISSUE, 0.3)) == pytest.approx(0.3)
    assert tissue_share(plain(TISSUE, 0.3, (0, 0, 0))) == 1  # what is black says nothing
    assert tissue_share(plain(TISSUE, 0.01, (0, 0, 0))) == 0  # too little is lit
    assert tissue_share(plain((255, 202, 201))) == 0  # a reflection, however red
    assert tissue_share(plain((252, 200, 199))) == 1
    assert tissue_share(plain((200, 160, 100))) == 0  # (200 - 160) / 200 is just not more than 0.2
    assert tissue_share(plain((200, 159, 100))) == 1


def passed(colours: str, policy: str = "exclude", rate: float | None = 1.0) -> tuple[str, Withheld]:
    """What becomes of a row of frames: t(issue), d(rape), m(ixed, in doubt); "." where one is withheld."""
    kinds = {"t": plain(TISSUE), "d": plain(DRAPE), "m": plain(TISSUE, (INSIDE + OUTSIDE) / 2)}
    withheld = Withheld(policy, rate)
    out = list(withheld.pass_on(iter([kinds[kind] for kind in colours])))
    same = [np.array_equal(frame, kinds[kind]) for frame, kind in zip(out, colours, strict=True)]
    return "".join(kind if kept else "." for kind, kept in zip(colours, same, strict=True)), withheld


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("tttttttt", "tttttttt"),
        ("ttttdtttt", "tt.....tt"),  # two seconds on either side
        ("dtttttt", "...tttt"),
        ("ttttttd", "tttt..."),
        ("ttmttt", "tt.ttt"),  # in doubt: itself alone
        ("ttttmdmttt", "ttt.....tt"),
        ("ddd", "..."),
        ("t", "t"),
        ("tttdttttdttt", "t..........t"),
        ("tttdtttttdttt", "t.....t.....t"),
    ],
)
def test_what_is_surely_outside_takes_its_neighbours_along(given: str, left: str) -> None:
    assert passed(given)[0] == left


def test_spans_and_counts() -> None:
    _, withheld = passed("tttdtttttdttt")
    assert withheld.spans == (1, 6, 7, 12)
    assert (withheld.total, withheld.withheld) == (13, 10)
    assert passed("tttttt")[1].spans == ()
    assert passed("tttttttttdttttttttt", rate=0.5)[1].spans == (8, 11)  # a margin of two seconds is one frame
    assert passed("tttttttttdttttttttt", rate=None)[1].spans == (7, 12)


def test_blank_or_patches() -> None:
    """Nothing is left of a withheld frame but, with `blur`, colours eight pixels wide."""
    board = np.zeros((64, 64, 3), np.uint8)
    board[::2, 1::2] = board[1::2, ::2] = 255  # every letter and face is coarser than this, and as grey after it
    board[:32] //= 2
    (blank,) = Withheld("exclude", 1.0).pass_on(iter([board]))
    (blurred,) = Withheld("blur", 1.0).pass_on(iter([board]))
    assert not blank.any()
    assert np.array_equal(blurred, patches(board))
    assert abs(float(blurred.mean()) - float(board.mean())) < 2
    assert np.abs(np.diff(blurred[:, :, 0].astype(int), axis=1)).max() <= 1
    assert abs(int(blurred[4, 32, 0]) - 63) <= 2
    assert abs(int(blurred[60, 32, 0]) - 127) <= 2


def test_no_more_frames_wait_than_the_margin() -> None:
    """Of hours of video a handful is held."""
    taken = 0

    def source() -> object:
        nonlocal taken
        for _ in range(500):
            taken += 1
            yield plain(TISSUE)

    passing = Withheld("exclude", 1.0).pass_on(source())  # type: ignore[arg-type]
    for number, _ in enumerate(passing):
        assert taken <= number + 1 + 2


def film(path: Path, colours: str, fps: int = 10) -> Path:
    """A second of each colour, seen through a round border; something moves."""
    y, x = np.mgrid[:120, :160]
    disc = np.hypot(x - 80, y - 60) < 56
    frames = []
    for number in range(len(colours) * fps):
        frame = cv2.resize(plain({"t": TISSUE, "d": DRAPE}[colours[number // fps]]), (160, 120))
        frame[(number * 3) % 100 : (number * 3) % 100 + 20, 60:90] //= 2
        frames.append(frame * disc[..., None])
    return write_avi(path, np.stack(frames).astype(np.uint8), fps)


def test_from_video_to_store(tmp_path: Path) -> None:
    film(tmp_path / "in/a.avi", "ttttddtttttt")
    result = prepare(tmp_path / "in", tmp_path / "out", BODY, key=b"k" * 32)
    assert (result.frames, result.outside) == (12, 6)
    store = Prepared.open(tmp_path / "out")
    row = store.row(0)
    assert (row.n_frames, row.fps, row.source_fps, row.fps_source) == (12, 1.0, 10.0, "timestamps")
    assert row.outside == (2, 8)
    assert store.outside(0).tolist() == [[2, 8]]
    means = store.frames(0, list(range(12))).mean(axis=(1, 2, 3))
    assert (means[2:8] < 1).all()
    assert (means[:2] > 30).all()
    assert (means[8:] > 30).all()
    assert store.summary()["outside"] == 6
    again = prepare(tmp_path / "in", tmp_path / "out", BODY, key=b"k" * 32, update=True)
    assert (again.reused, again.outside) == (1, 6)


def test_a_recording_that_is_not_understood_is_set_aside(tmp_path: Path) -> None:
    """One second of tissue in eleven of cloth; and a recording without any colour."""
    film(tmp_path / "in/a.avi", "ddddddtddddd")
    film(tmp_path / "in/b.avi", "tttttttttttt")
    grey = np.repeat(np.random.default_rng(0).integers(60, 90, (24, 120, 160, 1), np.uint8), 3, axis=-1)
    write_avi(tmp_path / "in/c.avi", grey, 10)
    result = prepare(tmp_path / "in", tmp_path / "out", BODY, key=b"k" * 32)
    assert {one.source.name: one.category for one in result.excluded} == {
        "a.avi": "out of body",
        "c.avi": "out of body",
    }
    assert "12 of 12 frames do not surely show the inside of a body" in result.excluded[0].reason
    assert len(list((tmp_path / "out/frames").rglob("*.mjpeg"))) == 1  # nothing of the others is left, not even a draft
    assert 0 < FEWEST < 0.5
    with pytest.raises(DataError, match="1 out of body"):
        prepare(tmp_path / "in/a.avi", tmp_path / "none", BODY, key=b"k" * 32)


def test_keep_keeps_and_grey_is_refused(tmp_path: Path) -> None:
    film(tmp_path / "in/a.avi", "tttddttt")
    prepare(tmp_path / "in", tmp_path / "out", BODY.changed({"out_of_body": "keep"}), key=b"k" * 32)
    assert Prepared.open(tmp_path / "out").row(0).outside == ()
    with pytest.raises(ConfigError, match=r"out_of_body: exclude tells tissue by its colour"):
        BODY.changed({"store": {"grey": True}})
    with pytest.raises(ConfigError, match=r"unknown key 'out_of_bdy'. Did you mean 'out_of_body'"):
        BODY.changed({"out_of_bdy": "keep"})
    assert BODY.changed({"store": {"rate": 5.0}}).store == StoreSettings(size=32, rate=5.0)


def test_letters_are_found_between_blank_frames(tmp_path: Path) -> None:
    """They no longer stand still where some frames are blank: the audit looks at the others."""
    frames = np.stack([cv2.resize(plain(TISSUE if second < 4 else DRAPE), (160, 120)) for second in range(12)])
    frames[8:] = frames[0]
    for number, frame in enumerate(frames):
        frame[20:40, 10 * number : 10 * number + 30] //= 2
        cv2.putText(frame, "DOE JANE", (20, 80), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    write_avi(tmp_path / "in/a.avi", frames, 1)
    prepare(
        tmp_path / "in",
        tmp_path / "out",
        BODY.changed({"store": {"size": 128}, "region": {"text": "keep"}}),
        key=b"k" * 32,
    )
    assert Prepared.open(tmp_path / "out").row(0).outside == (2, 10)
    text = next(check for check in audit(tmp_path / "out").checks if check.name == "drawn text")
    assert len(text.found) == 1


DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "surgical"
ROOMS = {"00001-21711-frame-17066", "00001-21711-frame-46322", "00015-23925-frame-122417"}  # as a person sees it


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no sample files at {DATA}")
def test_real_frames() -> None:
    """37 of 40 frames of two operations are inside; a drape, green cloth and the unfocused room are not. In a trocar: withheld."""
    stills = sorted(DATA.glob("intermountain_frames/*/*.jpg"))
    shares = {path.stem: tissue_share(cv2.imread(str(path))[..., ::-1]) for path in stills}
    assert len(shares) == 40
    assert {name for name, share in shares.items() if share < OUTSIDE} == ROOMS
    assert {name for name, share in shares.items() if share < INSIDE} == ROOMS
    for name, inside in (("VID43_147_and_VID42_3625_a", True), ("VID05_1858_and_VID08_1331_a", False)):
        with open_reader(DATA / f"cholect50_clips/{name}.mp4") as reader:
            found = [tissue_share(reader.frames([at])[0]) >= INSIDE for at in range(0, 800, 160)]
        assert found == [inside] * 5


def test_the_shipped_domain() -> None:
    domain = load_domain("surgical")
    assert (domain.out_of_body, domain.region.policy, domain.store.rate, domain.store.grey) == (
        "exclude",
        "endoscope",
        1.0,
        False,
    )
    own = {*domain.task("phase").classes, *domain.task("tool").classes}
    assert set(domain.prompts) == own | {
        name for one in OPERATIONS.values() for name in (one.name, *one.phases)
    }  # and the phantom's

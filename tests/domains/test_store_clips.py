import cv2
import numpy as np
import pytest
from store_factory import make_prepared

from domains.base import AugmentPolicies, AugmentSettings, ClipSettings
from domains.store.clips import (
    Clip,
    draw_views,
    evaluation_clips,
    frame_indices,
    last_start,
    policy_of,
    resize,
    sample_seed,
)
from domains.store.prepared import Prepared
from domains.store.square import WHOLE, place

CLIP = ClipSettings(frames=8, size=24, rate=12.5, stride=3)
POLICIES = AugmentPolicies(
    weak=AugmentSettings(crop_scales=(1.0, 0.75)),
    strong=AugmentSettings(crop_scales=(0.5,), flip=0.5, brightness=0.1, contrast=0.2),
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_prepared(
        tmp_path_factory.mktemp("store") / "prepared", videos=3, patients=3, frames=60, size=32
    ).prepared


def test_indices_follow_rate_stride_and_hold_the_last_frame():
    assert frame_indices(100, 25.0, CLIP, 10).tolist() == [10, 12, 14, 16, 18, 20, 22, 24]
    assert frame_indices(100, 25.0, CLIP, 10, speed=2.0).tolist() == [10, 14, 18, 22, 26, 30, 34, 38]
    assert frame_indices(100, None, CLIP, 1).tolist() == [1, 4, 7, 10, 13, 16, 19, 22]
    assert frame_indices(100, 25.0, CLIP.model_copy(update={"rate": None}), 0).tolist() == list(range(0, 24, 3))
    assert frame_indices(10, 25.0, CLIP, 0).tolist() == [0, 2, 4, 6, 8, 9, 9, 9]
    assert frame_indices(100, 10.0, CLIP, 0).tolist() == [0, 1, 2, 2, 3, 4, 5, 6]  # 0.8 frames a step
    assert last_start(100, 25.0, CLIP) == 85
    assert frame_indices(100, 25.0, CLIP, 85)[-1] == 99
    assert last_start(10, 25.0, CLIP) == 0


def test_sample_seeds_are_fixed_for_ever_and_differ():
    # A change of this number would break the resume of every run there is.
    assert sample_seed(0, 0, "video", 0) == 276371494694965015
    seeds = {sample_seed(s, e, v, d) for s in range(3) for e in range(3) for v in "abc" for d in range(3)}
    assert len(seeds) == 81
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_same_sample_is_drawn_twice_alike_and_every_input_matters(prepared: Prepared):
    def draw(**changes: int) -> bytes:
        where = {"index": 1, "seed": 3, "epoch": 2, "draw": 0, **changes}
        drawn = draw_views(prepared, views={"a": Clip("strong")}, clip=CLIP, policies=POLICIES, **where)["a"]
        return drawn.frames.tobytes() + repr((drawn.flip, drawn.brightness, drawn.contrast)).encode()

    assert draw() == draw()
    assert len({draw(), draw(seed=4), draw(epoch=3), draw(draw=1), draw(index=2)}) == 5


def test_a_view_does_not_depend_on_which_others_there_are(prepared: Prepared):
    one = draw_views(prepared, 0, {"b": Clip("strong")}, CLIP, POLICIES, 0, 0)
    two = draw_views(prepared, 0, {"a": Clip("weak"), "b": Clip("strong")}, CLIP, POLICIES, 0, 0)
    assert (one["b"].frames == two["b"].frames).all()


class Recorder:
    """A store whose frames say which they are: the pixel value is the frame's number."""

    size = 32

    def __init__(self, n_frames: int, fps: float | None, outside: tuple[tuple[int, int], ...] = ()) -> None:
        self.n_frames, self.rate, self.spans = n_frames, fps, outside

    def outside(self, index: int) -> np.ndarray:
        return np.array(self.spans, np.int64).reshape(-1, 2)

    def video_id(self, index: int) -> str:
        return f"video{index}"

    def length(self, index: int) -> int:
        return self.n_frames

    def fps(self, index: int) -> float | None:
        return self.rate

    def frames(self, index: int, indices: list[int]) -> np.ndarray:
        assert list(indices) == sorted(set(indices))  # each frame is decoded once
        out = np.zeros((len(indices), 32, 32, 1), np.uint8)
        out += (np.array(indices) % 256).astype(np.uint8)[:, None, None, None]
        return out


def times(drawn: np.ndarray) -> list[int]:
    return drawn[:, 0, 0, 0].tolist()


def test_starts_cover_the_video_and_near_views_stay_within_a_clip_length():
    store = Recorder(200, 25.0)
    views = {"near": Clip("none", near="far"), "far": Clip("none"), "fast": Clip("none", rate=2.0)}
    starts, apart = [], []
    for epoch in range(300):
        drawn = draw_views(store, 0, views, CLIP, POLICIES, 0, epoch)  # type: ignore[arg-type]
        far, near = times(drawn["far"].frames), times(drawn["near"].frames)
        assert np.diff(far).tolist() == [2] * 7
        assert np.diff(times(drawn["fast"].frames)).tolist() == [4] * 7
        starts.append(far[0])
        apart.append(near[0] - far[0])
    assert min(starts) < 10
    assert max(starts) > 175
    assert max(starts) + 14 <= 199
    assert max(np.abs(apart)) <= 17  # 16 frames of a clip, and rounding
    assert min(apart) < -8
    assert max(apart) > 8


def test_a_short_video_gives_every_view_all_it_has():
    drawn = draw_views(Recorder(5, 25.0), 0, {"a": Clip("none")}, CLIP, POLICIES, 0, 0)["a"]  # type: ignore[arg-type]
    assert times(drawn.frames) == [0, 2, 4, 4, 4, 4, 4, 4]


class Spotted(Recorder):
    """A store whose frames have one lit spot of 4 by 4 pixels, about (14, 20) of 32."""

    def frames(self, index: int, indices: list[int]) -> np.ndarray:
        out = np.zeros((len(indices), 32, 32, 1), np.uint8)
        out[:, 18:22, 12:16] = 250
        return out


def test_points_lie_where_the_crop_shows_them():
    """By hand: of 32 pixels a crop from (4, 8), 16 wide; a frame whose stored square is its middle half."""
    crop = (4 / 32, 8 / 32, 20 / 32, 24 / 32)
    points = np.array([[14, 20], [4, 8], [20, 24], [3.9, 12], [12, 24.1], [np.nan, 9]], np.float32) / 32
    expected = np.array([[10 / 16, 12 / 16], [0, 0], [1, 1], *[[np.nan, np.nan]] * 3])
    np.testing.assert_allclose(place(points, WHOLE, crop), expected, atol=1e-6)
    mirrored = place(points, WHOLE, crop, flip=True)
    np.testing.assert_allclose(mirrored[:, 0], 1 - expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(mirrored[:, 1], expected[:, 1], atol=1e-6)
    middle = (0.25, 0.25, 0.75, 0.75)
    placed = place(np.array([[0.5, 0.5], [0.3, 0.3]], np.float32), middle, crop)  # stored at 16 and 3.2 of 32
    np.testing.assert_allclose(placed, [[12 / 16, 8 / 16], [np.nan, np.nan]], atol=1e-6)


def test_a_point_stays_on_what_it_is_about_in_every_crop():
    store, met = Spotted(40, 25.0), []
    policies = AugmentPolicies(strong=AugmentSettings(crop_scales=(1.0, 0.75, 0.5), flip=0.5))
    spot = np.array([[14 / 32, 20 / 32]], np.float32)
    for epoch in range(60):
        views = {"own": Clip("strong"), "same": Clip("none", like="own")}
        both = draw_views(store, 0, views, CLIP, policies, 0, epoch)  # type: ignore[arg-type]
        drawn = both["own"]
        assert both["same"].box == drawn.box
        at = place(spot, WHOLE, drawn.box, flip=drawn.flip)[0]
        shown = drawn.frames[0, ..., 0] > 125
        shown = shown[:, ::-1] if drawn.flip else shown
        edge = shown[0].any() or shown[-1].any() or shown[:, 0].any() or shown[:, -1].any()
        if np.isnan(at).any():
            assert not shown[1:-1, 1:-1].all()  # at most a part of it is left, at the edge
            assert edge or not shown.any()
        elif not edge:
            ys, xs = np.nonzero(shown)
            assert at * 24 == pytest.approx([xs.mean() + 0.5, ys.mean() + 0.5], abs=0.5)
            met.append((drawn.flip, drawn.box[2] - drawn.box[0]))
    assert {flip for flip, _ in met} == {True, False}
    assert len({side for _, side in met}) == 3


def test_nearer_is_likelier_where_the_density_falls():
    """A density that falls to 0 at 100 frames: half of the draws are within 100 (1 - 1 / sqrt 2) = 29 frames, as far as the recording reaches."""
    store = Recorder(100_000, 25.0)
    views = {"far": Clip("none"), "near": Clip("none", near="far", within=100 / 16, falling=True)}
    apart = []
    for epoch in range(1000):
        drawn = draw_views(store, 0, views, CLIP, POLICIES, 0, epoch)  # type: ignore[arg-type]
        apart.append((int(drawn["near"].frames[0, 0, 0, 0]) - int(drawn["far"].frames[0, 0, 0, 0]) + 128) % 256 - 128)
    away = np.abs(apart)
    assert away.max() <= 101
    assert 26 < np.median(away) < 32.5
    assert 400 < sum(one > 0 for one in apart) < 600


def test_a_density_that_falls_stays_within_a_short_recording():
    views = {"far": Clip("none"), "near": Clip("none", near="far", within=None, falling=True)}
    found = []
    for epoch in range(300):
        drawn = draw_views(Recorder(60, 25.0), 0, views, CLIP, POLICIES, 0, epoch)  # type: ignore[arg-type]
        found.append((times(drawn["far"].frames)[0], times(drawn["near"].frames)[0]))
        assert max(times(drawn["near"].frames)) <= 59
    apart = np.array([near - far for far, near in found])
    assert apart.max() > 20
    assert apart.min() < -20
    assert (
        np.median(np.abs(apart)) < 15
    )  # of two independent draws in 45 frames: 0.29 * 45 = 13; nearer here, and off the edges


def test_the_same_start_and_a_longer_clip():
    views = {"a": Clip("none"), "b": Clip("none", near="a", within=0, length=1.5)}
    for epoch in range(60):
        drawn = draw_views(Recorder(200, 25.0), 0, views, CLIP, POLICIES, 0, epoch)  # type: ignore[arg-type]
        first, long = times(drawn["a"].frames), times(drawn["b"].frames)
        assert len(long) == 12
        assert long[0] == min(first[0], 199 - 22)  # the long one has to fit as well


def test_views_that_look_alike(prepared: Prepared):
    views = {
        "a": Clip("strong"),
        "b": Clip("strong", near="a", within=0, like="a"),
        "c": Clip("strong", near="a", within=0),
    }
    for epoch in range(20):
        drawn = draw_views(prepared, 0, views, CLIP, POLICIES, 0, epoch)
        a, b, c = (drawn[name] for name in "abc")
        assert (b.flip, b.brightness, b.contrast) == (a.flip, a.brightness, a.contrast)
        assert (b.frames == a.frames).all()
        assert c.brightness != a.brightness
    with pytest.raises(ValueError, match="a -> b -> a"):
        draw_views(prepared, 0, {"a": Clip(like="b"), "b": Clip(like="a")}, CLIP, POLICIES, 0, 0)


def test_views_that_wait_for_each_other_are_an_error(prepared: Prepared):
    with pytest.raises(ValueError, match="a -> b -> a"):
        draw_views(prepared, 0, {"a": Clip(near="b"), "b": Clip(near="a")}, CLIP, POLICIES, 0, 0)


def test_the_crop_is_one_for_all_frames_and_everywhere_in_the_end():
    y, x = np.mgrid[:32, :32]

    class Gradient(Recorder):
        def frames(self, index: int, indices: list[int]) -> np.ndarray:
            return np.repeat((y * 4 + x * 3)[None, ..., None], len(indices), axis=0).astype(np.uint8)

    corners = set()
    for epoch in range(150):
        drawn = draw_views(Gradient(30, 25.0), 0, {"a": Clip("strong")}, CLIP, POLICIES, 0, epoch)["a"]  # type: ignore[arg-type]
        assert (drawn.frames == drawn.frames[:1]).all()
        corners.add(int(drawn.frames[0, 0, 0, 0]))
        assert -0.1 <= drawn.brightness <= 0.1
        assert 0.8 <= drawn.contrast <= 1.2
    assert min(corners) <= 4  # a crop of half the side, from the upper left ...
    assert max(corners) >= 106  # ... to the lower right, where 16 * 7 = 112


def test_flips_happen_as_often_as_the_policy_says_and_none_does_nothing(prepared: Prepared):
    views = {"a": Clip("strong"), "n": Clip("none")}
    draws = [draw_views(prepared, 0, views, CLIP, POLICIES, 0, epoch) for epoch in range(200)]
    assert 70 < sum(draw["a"].flip for draw in draws) < 130
    assert all((draw["n"].flip, draw["n"].brightness, draw["n"].contrast) == (False, 0.0, 1.0) for draw in draws)


def test_an_unknown_policy_is_an_error():
    with pytest.raises(KeyError, match="no augmentation policy 'wild'"):
        policy_of(POLICIES, "wild")


def test_evaluation_clips_are_whole_frames_spread_over_the_video(prepared: Prepared):
    clips = evaluation_clips(prepared, 0, CLIP, 3)
    assert clips.shape == (3, 8, 24, 24, 1)
    for number, start in enumerate([0, 22.5, 45]):
        frames = prepared.frames(0, frame_indices(60, 25.0, CLIP, start).tolist())
        expected = [cv2.resize(frame, (24, 24), interpolation=cv2.INTER_AREA) for frame in frames]
        assert (clips[number, ..., 0] == np.stack(expected)).all()
    assert times(evaluation_clips(Recorder(60, 25.0), 0, CLIP, 1)[0])[0] == 23  # type: ignore[arg-type]


def test_resize_averages_when_it_shrinks():
    frames = np.zeros((1, 4, 4, 1), np.uint8)
    frames[0, ::2] = 100
    small = resize(frames, (0, 0, 4), 2, np.array([0, 0]))
    assert (small == 50).all()
    assert small.shape == (2, 2, 2, 1)


def test_no_clip_meets_withheld_frames_where_there_is_another_place() -> None:
    """8 frames of a second each; frames 20 to 59 of 100 are withheld."""
    second = ClipSettings(frames=8, size=24, rate=1.0)
    store = Recorder(100, 1.0, ((20, 60),))
    views = {"a": Clip(augment="none"), "b": Clip(augment="none", near="a", within=1.0)}
    met, starts = [], set()
    for epoch in range(60):
        drawn = draw_views(store, 0, views, second, POLICIES, seed=1, epoch=epoch)
        met += [20 <= time < 60 for view in drawn.values() for time in times(view.frames)]
        starts.add(times(drawn["a"].frames)[0] // 10)
    assert not any(met)
    assert starts >= {0, 1, 6, 7, 8}
    clear = Recorder(100, 1.0)
    same = draw_views(clear, 0, views, second, POLICIES, seed=1, epoch=3)
    assert times(same["a"].frames) == times(
        draw_views(Recorder(100, 1.0, ((0, 0),)), 0, views, second, POLICIES, seed=1, epoch=3)["a"].frames
    )


def test_a_clip_that_cannot_avoid_withheld_frames_meets_the_fewest() -> None:
    second = ClipSettings(frames=8, size=24, rate=1.0)
    store = Recorder(12, 1.0, ((5, 12),))
    drawn = draw_views(store, 0, {"a": Clip(augment="none")}, second, POLICIES, seed=0, epoch=0)
    assert times(drawn["a"].frames)[0] == 0


def test_evaluation_clips_step_aside() -> None:
    second = ClipSettings(frames=4, size=24, rate=1.0)
    store = Recorder(40, 1.0, ((10, 30),))
    found = [times(clip)[0] for clip in evaluation_clips(store, 0, second, 3)]
    assert found == [0, 6, 36]  # the middle would begin at 18: 6 is as near as 30, and comes first
    assert [times(clip)[0] for clip in evaluation_clips(Recorder(40, 1.0, ((0, 40),)), 0, second, 3)] == [0, 18, 36]

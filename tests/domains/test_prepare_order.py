"""Order statistics are those of a sort, ties and extremes included."""

from __future__ import annotations

import numpy as np
import pytest

from domains.prepare.order import kth_brightest, kth_darkest


@pytest.mark.parametrize("frames", [1, 2, 8, 32])
def test_it_is_what_a_sort_gives(frames: int) -> None:
    rng = np.random.default_rng(frames)
    values = rng.choice([0, 1, 7, 254, 255], size=(frames, 6, 5)).astype(np.uint8)
    before, ordered = values.copy(), np.sort(values, axis=0)
    for k in range(frames):
        assert (kth_darkest(values, k) == ordered[k]).all()
        assert (kth_brightest(values, k) == ordered[-1 - k]).all()
    assert (values == before).all()


def test_a_place_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(IndexError):
        kth_darkest(np.zeros((3, 2, 2), np.uint8), 3)

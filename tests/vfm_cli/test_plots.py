"""Curves as text."""

from __future__ import annotations

import math

import pytest

from vfm_cli.plots import Style, chart, grid, legend, line, padded, plain

ASCII, BRAILLE, COLOUR = Style(80, False, False), Style(80, True, False), Style(80, True, True)
FALLING = [(float(x), 10.0 - x) for x in range(11)]


def area(lines: list[str]) -> list[str]:
    """What stands right of the axis."""
    return [one[9 + 1 :] for one in lines[1:-2]]


def test_a_falling_curve_falls() -> None:
    rows = area(chart("loss", [FALLING], ASCII, width=21, height=11))
    places = [row.index("*") for row in rows]
    assert places[0] == 0
    assert rows[-1].rstrip().endswith("*")
    assert places == sorted(places)
    assert len(rows) == 11


@pytest.mark.parametrize("style", [ASCII, BRAILLE, COLOUR])
@pytest.mark.parametrize("width", [34, 60, 100])
def test_no_line_is_wider_than_asked(style: Style, width: int) -> None:
    lines = chart(
        "a figure with a very long name that does not fit into so few columns at all", [FALLING, FALLING], style, width
    )
    assert max(len(plain(one)) for one in lines) <= width


def test_numbers_say_where_the_curve_is() -> None:
    lines = chart("loss", [[(100.0, 0.5), (900.0, 2.5)]], ASCII, width=50, height=7)
    assert lines[0].startswith("loss ")
    assert lines[0].endswith(" 2.5")
    assert lines[-1].split() == ["100", "900"]
    beside = [one[:8].strip() for one in lines[1:-2]]
    assert [one for one in beside if one] == ["2", "1"]


def test_ascii_is_ascii_and_colours_only_where_they_are_wanted() -> None:
    assert all(one.isascii() for one in chart("loss", [FALLING], ASCII, 50))
    assert "\033" not in "".join(chart("loss", [FALLING, FALLING], BRAILLE, 50))
    assert "\033[31m" in "".join(chart("loss", [FALLING, FALLING], COLOUR, 50))
    assert legend(["one"], ASCII) == ["a one"]


def test_several_curves_without_colours_are_letters() -> None:
    text = "\n".join(area(chart("loss", [FALLING, [(0.0, 10.0), (10.0, 10.0)]], BRAILLE, 50)))
    assert "a" in text
    assert "b" in text
    assert text.splitlines()[0].rstrip() == "b" * len(text.splitlines()[0].rstrip())


def test_values_that_are_not_finite_are_left_out() -> None:
    assert chart("loss", [[(1.0, math.nan), (2.0, math.inf)]], ASCII, 50) == []
    assert chart("loss", [[(1.0, 1.0), (2.0, math.nan), (3.0, 0.0)]], ASCII, 50)[0].endswith(" 0")
    assert chart("one point", [[(5.0, 0.0)]], BRAILLE, 50)


def test_charts_stand_side_by_side_where_the_terminal_is_wide() -> None:
    figures = [(name, [FALLING]) for name in ("one", "two", "three", "four")]
    wide, narrow = grid(figures, Style(150, True, True)), grid(figures, Style(50, True, True))
    assert plain(wide[0]).split()[::2] == ["one", "two", "three"]
    assert plain(narrow[0]).split() == ["one", "0"]
    assert max(len(plain(one)) for one in wide) <= 150
    assert padded("\033[34mab\033[0m", 4).endswith("  ")


def test_lines_join_their_ends() -> None:
    assert line((0, 0), (2, 4)) == [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)]
    assert line((3, 3), (3, 3)) == [(3, 3), (3, 3)]


@pytest.mark.parametrize(("variables", "unicode"), [({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, True)])
def test_the_style_follows_the_terminal(
    variables: dict[str, str], unicode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Style.of_stdout() == Style(77, unicode, True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not Style.of_stdout().colour
    assert not Style.of_stdout(ascii_only=True).unicode

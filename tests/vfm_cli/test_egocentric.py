"""`vfm data synth egocentric`, and the options of `vfm evaluate` that are of moments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from domains.errors import ConfigError
from vfm_cli.commands.evaluate import check_of_moments
from vfm_cli.main import cli


def test_the_phantom_is_made_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "seen"
    words = [
        "data",
        "synth",
        "egocentric",
        "--events",
        "1",
        "--people",
        "1",
        "--seconds",
        "4",
        "--hud",
        "--workers",
        "1",
        "--out",
        str(out),
        "--json",
    ]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["events"], told["recordings"]) == (1, 1)
    assert {path.name for path in out.iterdir()} >= {
        "dataset.yaml",
        "recordings.csv",
        "spans.csv",
        "texts.csv",
        "signals.csv",
        "videos",
    }
    assert "blank" in (out / "dataset.yaml").read_text()
    again = CliRunner().invoke(cli, words)
    assert again.exit_code != 0  # nothing is written among other files


def test_options_of_moments_are_refused_elsewhere() -> None:
    nothing = {"every": None, "ahead": None, "opposites": False}
    check_of_moments(False, "ef", report=Path("page.html"), **nothing)
    check_of_moments(True, "mates", report=None, every=1.0, ahead=None, opposites=False)
    for name, value in (("every", 1.0), ("ahead", 1.0), ("opposites", True)):
        with pytest.raises(ConfigError, match=f"--{name} is for tasks of moments"):
            check_of_moments(False, "ef", report=None, **{**nothing, name: value})
    with pytest.raises(ConfigError, match="no page is made of 'mates'"):
        check_of_moments(True, "mates", report=Path("page.html"), **nothing)

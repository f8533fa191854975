"""`vfm data synth egocentric`, and the options of `vfm evaluate` that are of moments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from views_factory import make_views

from domains.errors import ConfigError
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.parts.sensed import ImuShape, SensedImu, save_sensed
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


def test_retrieval_of_a_run_with_signals(tmp_path: Path) -> None:
    prepared = make_views(tmp_path / "prepared", events=2, signals=True)
    encoder = fresh_videomae(
        Geometry(frames=8, size=16, rate=4), seed=0, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, patch_size=8,
        tubelet_size=2,
    )  # fmt: skip
    encoder.save(tmp_path / "run" / "encoder")
    save_sensed(tmp_path / "run", SensedImu(ImuShape(video=16, hidden=8, outputs=4, width=4, channels=2)), 40)
    words = [
        "evaluate",
        "retrieval",
        "--encoder",
        str(tmp_path / "run"),
        "--data",
        str(prepared.folder),
        "--clips",
        "2",
    ]
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["stretches"] == 16  # of four cameras of two events; the fifth feels nothing
    assert {row["name"] for row in told["rows"]} >= {"clip_to_signal", "signal_to_clip", "clip_to_signal_chance"}
    refused = CliRunner().invoke(cli, [*words, "--acts"])
    assert isinstance(refused.exception, ConfigError)
    assert "knows no texts" in str(refused.exception)

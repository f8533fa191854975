"""Run folders as `vfm pretrain` leaves them, written in milliseconds and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from recipes.config import Layer, flatten, recipe_yaml, resolve, set_key, yaml_layer

LINES = [
    {"step": s, "epoch": s / 10, "lr": 1e-3, "clips_per_second": 8.0, "data_wait": 0.25, "seconds": 2.0 * s, "loss": 4.0 / s, "rankme": 10.0 + s}
    for s in range(1, 21)
]  # fmt: skip


def write_run(folder: Path, *, settings: dict[str, Any] | None = None, lines: list[dict[str, Any]] | None = None, tail: str = "",
              finished: bool = False, status: dict[str, Any] | None = None, origins: bool = True) -> Path:  # fmt: skip
    """A videomae run of the domain echo. settings: dotted keys of the user. lines: of metrics.jsonl, LINES unless given; tail: what follows
    them, half written."""
    from domains.base import load_domain

    typed: dict[str, Any] = {}
    for key, value in {"data.path": "nowhere/prepared", "train.steps": 20, **(settings or {})}.items():
        set_key(typed, key, value)
    layers = [
        yaml_layer(recipe_yaml("videomae"), "recipe videomae"),
        Layer("domain echo", {"domain": "echo", **load_domain("echo").run_layer()}),
        Layer("command line", typed),
    ]
    resolved = resolve(layers)
    folder.mkdir(parents=True)
    (folder / "config.resolved.yaml").write_text(resolved.to_yaml(), encoding="utf-8")
    if origins:
        (folder / "origins.json").write_text(json.dumps(resolved.origins))
    (folder / "env.json").write_text(json.dumps({"packages": {"torch": "2.13.0"}, "cpus": 2}))
    written = LINES if lines is None else lines
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written) + tail)
    if finished:
        record = {"steps": 20, "data": {"videos": 12, "patients": 1, "domain": "echo", "data_set": "EchoNet"}}
        (folder / "record.json").write_text(json.dumps(record))
    if status is not None:
        (folder / "status.json").write_text(json.dumps(status))
    return folder


def write_checkpoint(run: Path, step: int, *, whole: bool = True, latest: bool = False) -> None:
    """A checkpoint of 100 bytes with its manifest."""
    folder = run / "checkpoints" / f"step_{step:08d}"
    folder.mkdir(parents=True)
    (folder / "objective.safetensors").write_bytes(bytes(100 if whole else 60))
    (folder / "manifest.json").write_text(json.dumps({"objective.safetensors": {"bytes": 100, "sha256": ""}}))
    if latest:
        (run / "checkpoints" / "latest").write_text(folder.name + "\n")


def settings_of(run: Path) -> dict[str, Any]:
    """Dotted key -> value, as written."""
    return dict(flatten(yaml.safe_load((run / "config.resolved.yaml").read_text())))

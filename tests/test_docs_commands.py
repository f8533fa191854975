"""Every `$ vfm ...` line of README.md and docs/ runs, in order, page by page, as it stands."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import yaml
from layout_factory import filmed_echonet
from once_factory import once

from vfm_cli.console import run_guarded
from vfm_cli.main import cli

REPO = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in (REPO / "docs").glob("*.md") if "```console" in path.read_text(encoding="utf-8"))
# What keeps the pages' commands short is set here; the commands themselves run as they are printed.
FAST = {"train": {"steps": 2, "batch_size": 2}, "clip": {"frames": 4, "size": 32, "stride": 2}, "data": {"workers": 0}}


def commands(page: Path) -> list[list[str]]:
    """The words of each command, in order."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line[2:].split("  #")[0] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line) for line in lines]


def make_phantom(folder: Path) -> None:
    """`studies`, half of those that `vfm data synth echo --patients 10` makes: of each patient two of the four views. And `prepared`, of them."""
    from domains.base import load_domain
    from domains.echo import phantom
    from domains.prepare.ingest import prepare
    from domains.prepare.privacy import load_key

    whole, every = phantom._write_study, phantom.VIEWS

    def half(task: tuple[str, int, int]) -> phantom.Study:
        phantom.VIEWS = (every * 2)[task[2] % 4 :][:2]
        return whole(task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "VIEWS", every)
        patch.setattr(phantom, "_write_study", half)
        phantom.synthesise(folder / "studies", 10, workers=1)
    key = load_key(folder / "test.key", create=True)
    prepare(folder / "studies", folder / "prepared", load_domain("echo"), key=key, workers=1)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies and a prepared folder that pages share."""
    return once(tmp_path_factory, "documented", make_phantom)


def ready_made(studies: Path) -> Callable[..., None]:
    """What `synthesise` would take half a minute for."""
    from domains.echo.phantom import synthesise

    def copied(*given: object, **options: object) -> None:
        shutil.copytree(studies, signature(synthesise).bind(*given, **options).arguments["out"])

    return copied


@pytest.mark.parametrize("page", [REPO / "README.md", *PAGES], ids=lambda page: page.stem)
def test_commands_run(
    page: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = commands(page)
    assert found
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VFM_KEY", str(phantom / "test.key"))
    monkeypatch.setenv("VFM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "fast.yaml").write_text(yaml.safe_dump(FAST))
    (tmp_path / "studies").symlink_to(phantom / "studies")
    if any("EchoNet-Dynamic" in words for words in found):
        filmed_echonet(tmp_path / "EchoNet-Dynamic")
    (tmp_path / "labels.csv").symlink_to(phantom / "studies" / "labels.csv")
    for words in found:
        assert words[0] == "vfm"
        words = words[1:]
        if "--slurm" in words and find_spec("submitit") is None:  # an extra
            continue
        if words[:3] == ["data", "synth", "echo"]:
            words = [*words, "--overwrite"] if "10" not in words else []
            if not words:  # the shared phantom is this very command's result
                continue
        if words[:3] == ["data", "synth", "surgical"]:
            words = [*words, "--pace", "400"]  # a quarter of a minute an operation
        if words[:3] == ["data", "prepare", "studies"] and not {"--key", "--update"} & set(words):
            out = Path(words[words.index("--out") + 1])
            if not out.exists():
                out.symlink_to(phantom / "prepared")
            continue
        if words[0] in ("pretrain", "finetune") and not {"--dry-run", "--resume"} & set(words):
            given = {word.split("=")[0] for word in words if "=" in word}
            words = [
                *words,
                *(f"{s}.{k}={v}" for s, keys in FAST.items() for k, v in keys.items() if f"{s}.{k}" not in given),
            ]
        if words[0] in ("evaluate", "bench") and words[1] != "findings":  # which asks an index
            words += ["--clips", "1"]
        if words[0] == "bench":  # its steps follow from its budget
            words += [f"{s}.{k}={v}" for s, keys in FAST.items() for k, v in keys.items() if k != "steps"]
        with pytest.MonkeyPatch.context() as patch:
            if words[0] == "pretrain" and "phantom" in words:
                patch.setattr("domains.echo.phantom.synthesise", ready_made(phantom / "studies"))
            if words[0] == "bench":
                patch.setattr("recipes.evaluate.linear.INVERSE_STRENGTHS", np.array([0.01, 1.0]))
            code = run_guarded(cli, words)
        assert code == 0, f"vfm {shlex.join(words)}: {capsys.readouterr().err[-800:]}"


@pytest.mark.parametrize(
    "page", [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))], ids=lambda page: page.stem
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not gone


def test_the_domain_in_the_docs_is_one(tmp_path: Path) -> None:
    from domains.base import load_domain

    (example,) = re.findall(
        r"```yaml\n(.*?)```", (REPO / "docs" / "domains.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    (tmp_path / "ours.yaml").write_text(example)
    assert load_domain(str(tmp_path / "ours.yaml")).task("tumour").classes == ("no", "yes")


def test_every_exit_code_is_documented() -> None:
    import domains.errors

    page = (REPO / "docs" / "errors.md").read_text(encoding="utf-8")
    kinds = [kind for kind in vars(domains.errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")]
    assert len(kinds) > 5
    assert all(f"| {kind.exit_code} |" in page for kind in kinds)

"""The house stands on three floors: imports go down only, and the lowest knows no model."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
FLOOR = {"domains": 0, "recipes": 1, "vfm_cli": 2}
ROOMS = {
    "encoders": 0,
    "parts": 1,
    "pretrain": 2,
    "finetune": 3,
    "runs": 4,
    "training": 5,
    "evaluate": 6,
    "report": 7,
    "jobs": 8,
    "bench": 9,
}


def imports(path: Path) -> list[str]:
    """Modules that a file imports, wherever in it; those for type checking alone are no dependency."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def files(top: str) -> list[Path]:
    return sorted((REPO / top).rglob("*.py"))


@pytest.mark.parametrize("top", FLOOR)
def test_imports_go_down_only(top: str) -> None:
    assert files(top)
    up = [
        f"{path.relative_to(REPO)} imports {module}"
        for path in files(top)
        for module in imports(path)
        if FLOOR.get(module.split(".")[0], -1) > FLOOR[top]
    ]
    assert not up


def test_domains_know_no_model() -> None:
    heavy = {"torch", "transformers", "peft", "accelerate"}
    assert not [
        f"{path.name} imports {module}"
        for path in files("domains")
        for module in imports(path)
        if module.split(".")[0] in heavy
    ]


def test_rooms_of_recipes_do_not_look_back_up() -> None:
    up = []
    for path in files("recipes"):
        room = path.relative_to(REPO / "recipes").parts[0]
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "recipes" and len(parts) > 1 and ROOMS.get(parts[1], -1) > ROOMS.get(room, 99):
                up.append(f"{path.relative_to(REPO)} imports {module}")
    assert not up


def test_no_method_imports_another() -> None:
    folder = REPO / "recipes" / "pretrain"
    names = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    across = [
        f"{path.name} imports {module}" for path in folder.glob("*.py") if path.stem != "__init__" for module in imports(path)
        if module.startswith("recipes.pretrain.") and module.split(".")[2] in names
    ]  # fmt: skip
    assert not across


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["domains", "ls"],
        ["recipes", "ls"],
        ["data", "--help"],
        ["pretrain", "--help"],
        ["--version"],
        ["runs", "--help"],
    ],
)
def test_quick_verbs_import_no_torch(words: list[str]) -> None:
    code = f"""
import sys
from vfm_cli.main import main
try:
    main({words!r})
except SystemExit as leave:
    assert leave.code == 0, leave.code
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout

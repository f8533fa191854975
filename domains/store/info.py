"""What a prepared folder says of itself in prepared.json, for those who want to name it without opening it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def described(folder: Path) -> dict[str, Any]:
    """domain, videos, patients, and the title of a public data set; empty for a folder that is not there or is none. Imports no table reader."""
    try:
        info = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
        counts = info.get("counts", {})
        return {
            "domain": info["domain"],
            **{name: counts[name] for name in ("videos", "patients") if isinstance(counts.get(name), int)},
            "data_set": info.get("layout", {}).get("title"),
        }
    except (OSError, ValueError, KeyError, AttributeError):
        return {}

"""The report: one HTML file that needs nothing but itself. No scripts, no network, no identifiers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path

from domains.errors import StorageError
from domains.store.manifest import vfm_version
from recipes.report.caveats import caveats
from recipes.report.comparison import comparison, verdicts
from recipes.report.contents import Contents
from recipes.report.data import set_aside, tiles, went_in
from recipes.report.maps import embedding_map, neighbours
from recipes.report.training import provenance, training

NAVIGATION = {
    "data": "What went in",
    "aside": "Set aside",
    "training": "Training",
    "comparison": "Comparison",
    "trust": "How far to trust this",
    "map": "Map",
    "neighbours": "Neighbours",
    "settings": "Settings",
}


def write_report(path: Path, contents: Contents) -> Path:
    """Write the page to `path`, whole or not at all. Raises StorageError."""
    return write_page(path, render(contents))


def write_page(path: Path, page: str) -> Path:
    """Write HTML to `path`, whole or not at all. Raises StorageError."""
    part = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise StorageError(f"the report cannot be written ({error.strerror})", where=path) from None
    return path


def render(contents: Contents) -> str:
    """The page as HTML."""
    body = [
        went_in(contents),
        set_aside(contents),
        training(contents),
        comparison(contents.evaluations),
        caveats(contents),
        embedding_map(contents),
        neighbours(contents),
        provenance(contents),
    ]
    joined = "".join(body)
    opening = f"{tiles(contents)}{verdicts(contents.evaluations)}"
    badge = ' <span class="badge phantom">phantom data</span>' if contents.phantom else ""
    return framed(contents.title, contents.prepared.domain, joined, NAVIGATION, opening=opening, badge=badge)


def framed(
    title: str, domain: str, body: str, navigation: Mapping[str, str], *, opening: str = "", badge: str = ""
) -> str:
    """A whole page around `body`. navigation: name of a section -> words, for those that `body` has. opening, badge: HTML above it, and beside the
    title. All but title and domain are HTML already."""
    links = "".join(
        f'<a href="#{name}">{words}</a>' for name, words in navigation.items() if f'<section id="{name}"' in body
    )
    style = resources.files("recipes.report").joinpath("page.css").read_text(encoding="utf-8")
    title = escape(title)
    when = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
    version = escape(vfm_version())
    # Nothing may be fetched or run, whatever a label or a reason contains.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{title}</title><style>{style}</style></head><body><main>"
        f"<header><h1>{title}{badge}</h1><p>vfm {version} · {escape(domain)} · {when}</p>"
        f"<nav>{links}</nav></header>{opening}{body}"
        f"<footer>Made by vfm {version}. No name on this page leads back to a person.</footer>"
        "</main></body></html>\n"
    )

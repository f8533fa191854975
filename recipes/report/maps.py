"""The embedding map, and clips with their nearest neighbours."""

from __future__ import annotations

from html import escape

import numpy as np

from domains.errors import MediaError
from domains.store.labels import Labels
from recipes.evaluate.features import Features
from recipes.evaluate.knn import unit
from recipes.report.charts import PALETTE, cloud, ramp
from recipes.report.contents import Contents, label_of
from recipes.report.html import card, section, task_name
from recipes.report.pictures import animation
from recipes.report.projection import flatten
from recipes.report.scale import number

QUERIES, NEIGHBOURS = 4, 5
NO_LABEL = "var(--rule)"


def embedding_map(contents: Contents) -> str:
    """One map per kind of features, coloured by each task's labels in turn; pixel statistics are left to the table."""
    shown = {
        name: found
        for name, found in contents.features.items()
        if name in list(contents.features)[-1:] or name == "generic"
    }
    shown = {name: found for name, found in shown.items() if len(found.index) >= 3}
    if not shown or not contents.labels:
        return ""
    flat = {name: flatten(found.values, contents.seed) for name, found in shown.items()}
    method = next(iter(flat.values()))[1]
    blocks = []
    for task, labels in contents.labels.items():
        clouds = []
        for name, found in shown.items():
            colours, words = _colours(found, labels, contents.units.get(task, ""))
            title = contents.titles.get(name, name)
            clouds.append(cloud(title, flat[name][0], colours, words))
        legend = _legend(labels, contents.units.get(task, ""))
        blocks.append(
            card(f"<h3>Coloured by {escape(task_name(task))}</h3>", legend, f'<div class="two">{"".join(clouds)}</div>')
        )
    lead = (
        f"Each point is a video, placed by {method} of its features; near points look alike to the encoder. "
        "Distances between far groups mean nothing; the table above decides, not this picture."
    )
    return section("map", "Embedding map", lead, *blocks)


def _colours(found: Features, labels: Labels, unit_name: str) -> tuple[list[str], list[str]]:
    value_of = dict(zip(labels.index.tolist(), labels.values.tolist(), strict=True))
    low, high = float(np.min(labels.values)), float(np.max(labels.values))
    colours, words = [], []
    for index in found.index.tolist():
        value = value_of.get(index)
        words.append(label_of(labels, index, unit_name) or "no label")
        if value is None:
            colours.append(NO_LABEL)
        elif labels.classes:
            colours.append(f"var(--c{int(value) % PALETTE})")
        else:
            colours.append(ramp((value - low) / (high - low) if high > low else 0.5))
    return colours, words


def _legend(labels: Labels, unit_name: str) -> str:
    if labels.classes:
        items = [
            f'<span><i style="background:var(--c{n % PALETTE})"></i>{escape(name)}</span>'
            for n, name in enumerate(labels.classes)
        ]
    else:
        stops = ", ".join(ramp(step / 8) for step in range(9))
        low, high = number(float(np.min(labels.values))), number(float(np.max(labels.values)))
        bar = f'<i class="ramp" style="background:linear-gradient(90deg, {stops})"></i>'
        items = [f"<span>{low} {bar}{high} {escape(unit_name)}</span>"]
    return f'<div class="legend">{"".join(items)}</div>'


def neighbours(contents: Contents) -> str:
    """Some videos and those of other patients that the encoder finds most alike, moving."""
    if not contents.features:
        return ""
    found = list(contents.features.values())[-1]
    patients = contents.prepared.patients
    if len({patients[index] for index in found.index.tolist()}) < 2:
        return ""
    scaled = unit(found.values)
    lines = []
    for query in _queries(contents, found):
        index = int(found.index[query])
        similarity = scaled @ scaled[query]
        others = np.array([patients[other] != patients[index] for other in found.index.tolist()])
        order = [place for place in np.argsort(-similarity, kind="stable").tolist() if others[place]][:NEIGHBOURS]
        near = "".join(_figure(contents, int(found.index[place]), float(similarity[place])) for place in order)
        lines.append(f'<div class="line">{_figure(contents, index, None)}<div class="near">{near}</div></div>')
    lead = (
        "Left, outlined: a video drawn by chance. Right: the videos of <em>other</em> patients whose features are "
        "nearest by cosine, the nearest first. What they share is what the encoder has learned to see."
    )
    return section("neighbours", "Clips and their nearest neighbours", lead, card(*lines, kind="clips"))


def _queries(contents: Contents, found: Features) -> list[int]:
    """Places in `found` of the videos shown: one of each class of the first labelled classification, else any."""
    order = np.random.default_rng(contents.seed).permutation(len(found.index)).tolist()
    labels = next((labels for labels in contents.labels.values() if labels.classes), None)
    if labels is None:
        return order[:QUERIES]
    value_of = dict(zip(labels.index.tolist(), labels.values.tolist(), strict=True))
    first: dict[int, int] = {}
    for place in order:
        value = value_of.get(int(found.index[place]))
        if value is not None:
            first.setdefault(int(value), place)
    chosen = [first[value] for value in sorted(first)]
    return (chosen + [place for place in order if place not in chosen])[: max(QUERIES, min(len(chosen), 6))]


def _figure(contents: Contents, index: int, similarity: float | None) -> str:
    said = [label_of(labels, index, contents.units.get(task, "")) for task, labels in contents.labels.items()]
    words = " · ".join(escape(word) for word in said if word) or "no label"
    words += "" if similarity is None else f"<br>cosine {similarity:.4f}"
    try:
        source = animation(contents.prepared, index)
    except MediaError as error:
        return f"<figure><figcaption>{words}<br>cannot be read: {escape(error.reason)}</figcaption></figure>"
    kind = ' class="query"' if similarity is None else ""
    picture = f'<img alt="{escape(", ".join(word for word in said if word) or "clip")}" src="{source}">'
    return f"<figure{kind}>{picture}<figcaption>{words}</figcaption></figure>"

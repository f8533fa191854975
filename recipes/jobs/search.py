"""`vfm embed` and `vfm search`: a collection as vectors, and what in it is like a text or an example."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from domains.base import ClipSettings, StoreSettings, load_domain
from domains.errors import ConfigError, DataError, ModelError
from domains.prepare.source import stored_frames
from domains.store.clips import clips_from, frame_indices, frame_step, resize, starts_every
from domains.store.frames import Frames
from domains.store.prepared import Prepared
from domains.store.strips import strip, write_sheet
from recipes.encoders import open_encoder
from recipes.encoders.aligned import is_aligned, open_aligned
from recipes.encoders.base import VideoEncoder
from recipes.evaluate.collecting import Note, Stretches, write_collection
from recipes.evaluate.collection import FORMAT, About, Collection, Hit
from recipes.evaluate.features import Extractor, ReadProgress, describing
from recipes.evaluate.knn import unit
from recipes.evaluate.metrics import Array
from recipes.evaluate.towers import Place, comparing, pieces_at
from recipes.evaluate.written import digest_of, fingerprint
from recipes.jobs.evaluate import clip_seen

SHOWN = 6  # frames of a strip


@dataclass(frozen=True)
class Model:
    """A model that can be searched with. clips: uint8 (n, T, S, S, C) -> (n, width) of length one. texts: words -> (n, width); None for an encoder
    that knows none."""

    encoder: VideoEncoder
    fingerprint: str
    width: int
    clips: Extractor
    texts: Callable[[Sequence[str]], Array] | None


@contextmanager
def searching(name: str | Path, *, online: bool = False) -> Iterator[Model]:
    """A run that aligned clips with texts, or any other encoder, for as long as it is asked. Raises ModelError."""
    if is_aligned(name):
        aligned = open_aligned(name, online=online)
        said = (aligned.encoder.geometry, aligned.text.reading, aligned.alignment.shape)
        unused = (*aligned.encoder.unused(), *aligned.text.unused())
        mark = digest_of(aligned, *(one.model_dump_json() for one in said), but=unused)
        with comparing(aligned) as towers:
            yield Model(
                aligned.encoder, mark, aligned.width, lambda clips: towers.clips(clips)[:, 0], lambda texts: towers.texts(texts)[:, 0]
            )  # fmt: skip
        return
    encoder = open_encoder(str(name), online=online)
    mark = fingerprint(encoder)
    with describing(encoder) as describe:
        yield Model(encoder, mark, encoder.description, lambda clips: unit(describe(clips)), None)


def embed(
    model: str | Path,
    data: Prepared | str | Path,
    out: Path,
    *,
    every: float | None = None,
    domain: str | None = None,
    online: bool = False,
    overwrite: bool = False,
    progress: ReadProgress | None = None,
    note: Note | None = None,
) -> About:
    """Embed a prepared folder: a clip every `every` seconds of each recording; None: one after the other. A call that was stopped or killed is gone
    on with by the same call (`collecting.write_collection`).

    model: a run that aligned clips with texts (to be searched in words as well), or any encoder. Recordings without a frame rate: one clip after the
    other. progress(clips done, of those that this call embeds). note: told what an earlier call has done. Returns what was written; `left_out` are
    the recordings that could not be read. Raises ConfigError, DataError where none can be, ModelError, StorageError.
    """
    prepared = data if isinstance(data, Prepared) else Prepared.open(data)
    with searching(model, online=online) as asked:
        clip = clip_seen(asked.encoder, prepared, domain)
        begin_at = {row: starts_every(prepared, row, clip, every) for row in range(len(prepared))}
        places = [(row, starts) for row, starts in begin_at.items() if len(starts)]  # of one, all may be withheld
        if not places:
            raise DataError("no recording has a clip that may be shown: frames are withheld", where=prepared.place)
        about = About(
            format=FORMAT, vfm=metadata.version("vfm"), model=str(model), fingerprint=asked.fingerprint, words=asked.texts is not None,
            width=asked.width, data=str(prepared.place), domain=domain or prepared.domain, key=prepared.info.get("key"),
            store=StoreSettings(**prepared.info["store"]), clip=clip, every=every, vectors=0, recordings=0, content=_content(prepared, places),
        )  # fmt: skip
        return write_collection(
            out,
            about,
            [_stretches(prepared, row, starts, clip) for row, starts in places],
            lambda skip: pieces_at(asked.clips, prepared, places, clip, progress, skip),
            overwrite=overwrite,
            note=note,
        )


def _stretches(prepared: Prepared, row: int, starts: Array, clip: ClipSettings) -> Stretches:
    fps = prepared.fps(row) or float("nan")
    begin = starts / fps
    end = np.minimum(begin + frame_step(prepared.fps(row), clip) * clip.frames / fps, prepared.length(row) / fps)
    return Stretches(prepared.video_id(row), starts, begin, end)


def _content(prepared: Prepared, places: Sequence[Place]) -> str:
    """16 hexadecimal digits of the recordings and of where their clips begin."""
    digest = hashlib.blake2b(digest_size=8)
    for row, starts in places:
        digest.update(f"{prepared.video_id(row)} {prepared.sha256(row)} {prepared.fps(row)} {len(starts)} ".encode())
        digest.update(starts.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Query:
    """What is looked for: a text, or a clip of `clip` (a file, or the pseudonym of a recording of the collection) that begins at `start` seconds."""

    text: str | None = None
    clip: str | None = None
    start: float = 0.0


def search(
    index: Path,
    query: Query,
    *,
    count: int = 5,
    apart: float | None = None,
    model: str | Path | None = None,
    data: str | Path | None = None,
    picture: Path | None = None,
    online: bool = False,
) -> list[Hit]:
    """The stretches of an embedded collection that are most like the query.

    apart: seconds between two hits of one recording, or the better one stands for both; None: the length of a clip. model, data: where they lie now,
    should it be elsewhere than when the collection was embedded. picture: a PNG of the hits, a strip of frames for each.

    Raises ConfigError (nothing to look for, or a text and a model without words), DataError, ModelError where the model is not the one that embedded
    the collection: vectors of two models cannot be compared.
    """
    collection = Collection.open(index)
    about = collection.about
    if (query.text is None) == (query.clip is None):
        raise ConfigError(
            "look for a text or for an example", do='vfm search "a text" --index INDEX, or --clip FILE --start 12'
        )
    if query.text is not None and not query.text.strip():
        raise ConfigError("a text without a word")
    if query.text is not None and not about.words:
        what = f"{Path(about.model).name} knows no words"
        raise ConfigError(
            what, where=index, do="Search by an example (--clip), or embed with a run that aligned clips with texts"
        )
    known = query.clip is None or Path(query.clip).exists()  # else it is a recording of the collection
    prepared = Prepared.open(data or about.data) if picture is not None or not known else None
    with searching(model or about.model, online=online) as asked:
        if asked.fingerprint != about.fingerprint:
            what = f"its weights are not those that embedded {index}: vectors of two models cannot be compared"
            raise ModelError(what, where=model or about.model, do="Give the one that did: --encoder, or embed again")
        if query.text is not None:
            assert asked.texts is not None
            vector = asked.texts([query.text])[0]
        else:
            vector = asked.clips(_of_file(query, about) if known else _of_collection(query, about, prepared))[0]
    hits = collection.search(vector, count, apart)
    if picture is not None and prepared is not None:
        draw_hits(hits, prepared, about.clip, picture)
    return hits


def _of_file(query: Query, about: About) -> Frames:
    """uint8 (1, T, S, S, C): the clip of a recording that nobody prepared, in the form in which it would be stored. Nothing is written."""
    path, clip = Path(query.clip or ""), about.clip

    def wanted(n_frames: int, fps: float | None) -> Sequence[int]:
        chosen: list[int] = frame_indices(n_frames, fps, clip, _begin(query, n_frames, fps)).tolist()
        return chosen

    frames = stored_frames(path, load_domain(about.domain), about.store, wanted)
    return resize(frames, (0, 0, about.store.size), clip.size, np.arange(len(frames)))[None]


def _of_collection(query: Query, about: About, prepared: Prepared | None) -> Frames:
    """The same of a recording of the collection, by its pseudonym."""
    assert prepared is not None
    try:
        row = prepared.index_of(query.clip or "")
    except DataError:
        what = "neither a file nor the pseudonym of a recording of the collection"
        raise DataError(what, where=query.clip, do="Take one from the answers of a search, or give a file") from None
    begin = _begin(query, prepared.length(row), prepared.fps(row))
    return clips_from(prepared, row, about.clip, np.array([begin]))


def _begin(query: Query, n_frames: int, fps: float | None) -> float:
    """The native frame at which the query's clip begins. Raises DataError where there is none."""
    if not query.start:
        return 0.0
    if not fps:
        raise DataError("its frame rate is not known, so it has no seconds", where=query.clip, do="Leave --start out")
    if not 0 <= query.start < n_frames / fps:
        what = f"it is {n_frames / fps:.4g} s long, and {query.start:g} s is not in it"
        raise DataError(what, where=query.clip, do="Give a --start within it")
    return query.start * fps


def draw_hits(hits: Sequence[Hit], prepared: Prepared, clip: ClipSettings, path: Path) -> Path:
    """A strip of frames for each hit under the other, as a PNG; a recording that is gone or damaged is a black strip. Raises StorageError."""
    count, strips = min(SHOWN, clip.frames), []
    for place, hit in enumerate(hits, 1):
        caption = f"{place}: {hit.video_id} {moment(hit)} similarity {hit.similarity:.3f}"
        frames: Frames | None = None
        with suppress(DataError):
            row = prepared.index_of(hit.video_id)
            seen = frame_indices(prepared.length(row), prepared.fps(row), clip, hit.frame)
            frames = prepared.frames(row, seen[np.linspace(0, len(seen) - 1, count).round().astype(int)].tolist())
        strips.append(strip(frames, prepared.size, count, caption))
    return write_sheet(strips, 1, path)


def moment(hit: Hit) -> str:
    """When a hit begins and ends, as a person reads it: 1:02:05.0-1:02:06.3, or its frame."""
    if hit.start is None or hit.end is None:
        return f"frame {hit.frame:g}"
    return f"{_clock(hit.start)}-{_clock(hit.end)}"


def _clock(seconds: float) -> str:
    tenths = round(10 * seconds)
    hours, minutes, rest = tenths // 36_000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"

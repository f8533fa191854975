"""X-Ego: synchronous first-person videos of the ten players of Counter-Strike 2 matches (HATS-ICT/x-ego)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Layout, Notes, Recording, Span, official
from domains.layouts.tables import Row, header_of, read_json, read_table, whole

VIDEO = re.compile(r"([^/]+)/video_306x306_4fps/([^/]+)/([^/]+)/round_(\d+)\.mp4")
MATES = tuple(f"teammate_{mate}_id" for mate in range(5))
CONTRASTIVE = [
    "idx", "partition", "pov_team_side", "start_seconds", "end_seconds", "match_id", "round_num", "num_alive_teammates",
]  # fmt: skip
TASK = ["idx", "partition", "pov_steamid", "start_tick", "end_tick", "match_id", "round_num"]
TICKS = 64.0  # ticks a second of the game
TEAM = "team"
View = tuple[str, str, int, str]  # map, match, round, player


class XEgo(Layout):
    """`<map>/video_306x306_4fps/<match>/<player>/round_NN.mp4`, `<map>/time_offset.json`,
    `<map>/labels/{contrastive,all_tasks/<task>}.csv`.

    A recording is one player's view of one round; its event is the round, its camera the player. Tables count from
    the start of the round: a view's own second is that plus its offset (`offset_sec` of time_offset.json by match,
    player, round; a view without one has no spans). Spans of "team": each line of contrastive.csv is a moment, its
    value the side, in the views of the players alive: the first num_alive_teammates of teammate_0..4_id. Spans of a
    task are named as its file; the reference gives no columns: those of the published code are read, `label`, or
    `label_0`, `label_1`, ... where each that is 1 is a value (its number; "" where none is); tasks of several quantities are passed
    over. Ticks are 64 a second. The official split is by round, so a match, which is the group, stands on several
    sides: notes count them. Player numbers that a spreadsheet has rounded are an error.
    """

    name = "x-ego"
    title = "X-Ego"
    domain = "egocentric"
    grouped_by = "matches"
    suffixes = (".mp4",)
    split_names = ("official",)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return any(
            {"pov_team_side", "num_alive_teammates"} <= header_of(table)
            for table in root.glob("*/labels/contrastive.csv")
        )

    @property
    def span_labels(self) -> tuple[str, ...]:
        return (TEAM, *self._tasks)

    def tasks(self) -> dict[str, TaskSettings]:
        """Of moments: several values at once where a table has label_0, label_1, ..., else one."""
        several = {label for label, tables in self._tasks.items() if _several(tables[0])}
        return {
            label: TaskSettings(kind="presence" if label in several else "phases", column=label)
            for label in self.span_labels
        }

    @cached_property
    def _maps(self) -> list[Path]:
        maps = sorted(path for path in self.root.iterdir() if (path / "labels").is_dir())
        if not maps:
            raise DataError(
                "no <map>/labels/contrastive.csv", where=self.root, do="Give the folder that holds the maps"
            )
        return maps

    @cached_property
    def _tasks(self) -> dict[str, list[Path]]:
        """Tables of each task, one a map."""
        tasks: dict[str, list[Path]] = {}
        for folder in self._maps:
            for table in sorted(folder.glob("labels/all_tasks/*.csv")):
                tasks.setdefault(table.stem, []).append(table)
        return tasks

    @cached_property
    def _offsets(self) -> dict[View, float]:
        offsets: dict[View, float] = {}
        for folder in self._maps:
            path = folder / "time_offset.json"
            for match, players in _mapping(read_json(path), path).items():
                for player, rounds in _mapping(players, path).items():
                    for name, entry in _mapping(rounds, path).items():
                        number = whole(name.removeprefix("round_"), "the round", str(path))
                        offset = _mapping(entry, path).get("offset_sec")
                        if not isinstance(offset, int | float):
                            raise DataError(f"'offset_sec' of {name} is not a number", where=path)
                        offsets[folder.name, match, number, player] = float(offset)
        return offsets

    @cached_property
    def _videos(self) -> dict[View, str]:
        matches = (VIDEO.fullmatch(path) for path in self.files)
        return {(m[1], m[2], int(m[4]), m[3]): m[0] for m in matches if m}

    @cached_property
    def _moments(self) -> list[tuple[str, Row, list[str]]]:
        """map, line, and players alive of every line of contrastive.csv."""
        moments = []
        for folder in self._maps:
            for row in read_table(folder / "labels" / "contrastive.csv", [*CONTRASTIVE, *MATES]):
                alive = whole(row.cells["num_alive_teammates"], "'num_alive_teammates'", row.where)
                if alive > len(MATES):
                    raise DataError(f"'num_alive_teammates' is {alive}, more than a team", where=row.where)
                moments.append((folder.name, row, [_player(row, column) for column in MATES[:alive]]))
        return moments

    @cached_property
    def _sides(self) -> dict[View, str]:
        """The side of every player who is named as a teammate in a round."""
        sides: dict[View, str] = {}
        for place, row, players in self._moments:
            number = whole(row.cells["round_num"], "'round_num'", row.where)
            for player in players:
                sides.setdefault((place, row.cells["match_id"], number, player), row.text("pov_team_side"))
        return sides

    def _read(self, notes: Notes) -> Iterator[Recording]:
        parts: dict[tuple[str, str, int], tuple[str, str]] = {}  # of a round, and where it was said
        views = set(self._videos)
        for place, row, players in self._moments:
            key = place, row.cells["match_id"], whole(row.cells["round_num"], "'round_num'", row.where)
            part = row.part("partition")
            if parts.setdefault(key, (part, row.where))[0] != part:
                raise DataError(f"a round of the part '{parts[key][0]}' again in '{part}'", where=row.where)
            views |= {(*key, player) for player in players}
        for view in sorted(views):
            place, match, number, player = view
            part, where = parts.get((place, match, number), ("", ""))
            if not part:
                notes.add("a round that contrastive.csv does not have: in no split", self._videos[view])
            if view not in self._offsets:
                notes.add("no time offset: no spans", self._videos.get(view, where))
            yield Recording(
                path=self._videos.get(view) or f"{place}/video_306x306_4fps/{match}/{player}/round_{number:02d}.mp4",
                group=f"{self.name}/{match}",
                splits=official(part),
                event=f"{place}/{match}/round_{number:02d}",
                camera=player,
                team=self._sides.get(view, ""),
                offset=self._offsets.get(view),
                listed=where,
            )

    def _spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        if label != TEAM:
            yield from self._task_spans(label, present, notes)
            return
        for place, row, players in self._moments:
            start, end = row.needed("start_seconds"), row.needed("end_seconds")
            for player in players:
                yield from self._span(place, row, player, (start, end), TEAM, row.text("pov_team_side"), present, notes)

    def _task_spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        for table in self._tasks[label]:
            place = table.parents[2].name
            several = _several(table)
            columns = several or ["label"]
            for row in read_table(table, [*TASK, *columns]):
                values = [row.cells[column] for column in columns]
                if several and not set(values) <= {"0", "1", "0.0", "1.0"}:
                    notes.add(f"'{label}' has several quantities, not classes", row.where)
                    continue
                if several:
                    values = [str(_number(name)) for name, cell in zip(several, values, strict=True) if float(cell)]
                    values = values or [""]  # somebody looked, and nothing is there
                start, end = row.needed("start_tick") / TICKS, row.needed("end_tick") / TICKS
                for value in values:
                    player = _player(row, "pov_steamid")
                    yield from self._span(place, row, player, (start, end), label, value, present, notes)

    def _span(
        self, place: str, row: Row, player: str, times: tuple[float, float], label: str, value: str,
        present: Mapping[str, Recording], notes: Notes,
    ) -> Iterator[Span]:  # fmt: skip
        """The span in one player's view, if that is on disk and its time is known."""
        number = whole(row.cells["round_num"], "'round_num'", row.where)
        recording = present.get(self._videos.get((place, row.cells["match_id"], number, player), ""))
        if recording is None or recording.offset is None:
            return
        start, end = (time + recording.offset for time in times)
        if start < 0:
            notes.add("a moment before the video starts", row.where)
            return
        yield Span(recording.path, start, end, label, value, moment=f"{place}/{label}/{row.cells['idx']}")


def _several(table: Path) -> list[str]:
    """The columns label_0, label_1, ... of a task's table, in order; none where it has one label."""
    return sorted((name for name in header_of(table) if re.fullmatch(r"label_\d+", name)), key=_number)


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[-1])


def _player(row: Row, column: str) -> str:
    """A player's number, all 17 digits of it: a table that went through floats has lost the last."""
    cell = row.text(column)
    if not cell:
        raise DataError(f"'{column}' is empty though the player is alive", where=row.where)
    if re.search(r"[.eE]", cell) and re.fullmatch(r"[\d.eE+]+", cell):
        do = "Its last digits are lost: use the table as it was downloaded"
        raise DataError(f"'{column}' was saved as a rounded number", where=row.where, do=do)
    return cell


def _mapping(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError("not match -> player -> round -> offset_sec", where=path)
    return value

"""Run folders are read as they lie there: half written, killed, of other versions."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_folder_factory import LINES, write_checkpoint, write_run

from domains.errors import AlarmError, ConfigError, StorageError, TrainingError
from recipes.runs.curves import draw_curves
from recipes.runs.metrics import Follower, last_row, leading, ordered, read_metrics, series_of, time_spent
from recipes.runs.run import Run, bytes_of, find_runs
from recipes.runs.settings import differences, differences_from_recipe, environments, is_same
from recipes.runs.status import ALARM, ERROR, FINISHED, INTERRUPTED, KILLED, RUNNING, locked, recorded

REPO = Path(__file__).resolve().parents[2]


@contextmanager
def holding(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a run, as a training one does."""
    code = f"""
import time
from pathlib import Path
from recipes.training.lock import FolderLock
lock = FolderLock(Path({str(run)!r}))
lock.take()
print("held", flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "held"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_half_written_last_line_is_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tail='{"step": 21, "lo')
    assert last_row(run)["step"] == 20
    assert [row["step"] for row in read_metrics(run)] == list(range(1, 21))
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe\x00 no json\n[1, 2]\n")
    assert (last_row(run), read_metrics(run)) == ({}, [])
    (run / "metrics.jsonl").unlink()
    assert (last_row(run), read_metrics(run), Run(run).step, Run(run).loss) == ({}, [], 0, None)


def test_the_last_line_is_found_in_a_long_log(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", lines=[{"step": step, "loss": 1.0} for step in range(1, 9001)])
    assert (run / "metrics.jsonl").stat().st_size > 1 << 17
    assert last_row(run) == {"step": 9000, "loss": 1.0}


def test_a_follower_sees_each_line_once_and_a_log_that_was_rewound_from_its_start(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", lines=LINES[:2], tail='{"step": 3, ')
    follower = Follower(run)
    assert [row["step"] for row in follower.new()] == [1, 2]
    assert follower.new() == []
    with (run / "metrics.jsonl").open("a") as file:
        file.write('"loss": 1.0}\n')
    assert follower.new() == [{"step": 3, "loss": 1.0}]
    (run / "metrics.jsonl").write_text(json.dumps(LINES[0]) + "\n")
    assert [row["step"] for row in follower.new()] == [1]
    assert len(follower.rows) == 1


def test_series_leave_out_clocks_repeats_of_held_figures_and_what_is_no_number() -> None:
    rows = [
        {"step": s, "loss": 1.0, "rankme": 5.0 if s < 3 else 4.0, "lr": 0.1, "note": "x", "flag": True}
        for s in range(1, 5)
    ]
    assert series_of([*rows, {"loss": 3.0}]) == {"loss": [(1, 1), (2, 1), (3, 1), (4, 1)], "rankme": [(1, 5), (3, 4)]}
    assert "lr" in series_of(rows, skip={"step"})
    assert series_of(rows[:1], least=2) == {}
    names = ["grad_norm", "rankme", "mae", "loss_a", "val_x", "loss"]
    assert ordered(names) == ["loss", "loss_a", "val_x", "rankme", "grad_norm", "mae"]
    assert leading(names, 4) == ["loss", "val_x", "rankme", "grad_norm"], "one of each kind before the second of any"


def test_time_is_split_between_the_loader_the_monitors_and_the_rest() -> None:
    rows = [
        {"step": 1, "seconds": 10.0, "data_wait": 0.2},
        {"step": 2, "seconds": 30.0, "data_wait": 0.5, "monitor_seconds": 4.0},
        {"step": 3, "seconds": 40.0, "data_wait": 0.0, "monitor_seconds": 4.0},
    ]
    assert time_spent(rows) == {"training": 8.0 + 8.0 + 10.0, "data": 2.0 + 8.0, "monitors": 4.0}


def test_a_run_is_running_while_a_process_holds_its_lock_and_no_longer(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", lines=LINES[:5], status={"state": RUNNING, "total": 20})
    assert Run(run).state == (INTERRUPTED, KILLED), "it says that it runs, and nobody does"
    with holding(run) as process:
        assert locked(run)
        assert Run(run).state == (RUNNING, "")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert Run(run).state == (INTERRUPTED, KILLED)
    assert (Run(run).step, Run(run).total) == (5, 20)


def test_without_locks_a_run_counts_as_running_while_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", status={"state": RUNNING})
    (run / ".lock").touch()

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.fcntl", refuse)
    assert locked(run) is None
    assert Run(run).state == (RUNNING, "")
    for path in (run / "metrics.jsonl", run / "status.json"):
        os.utime(path, (time.time() - 3600,) * 2)
    assert Run(run).state == (INTERRUPTED, KILLED)


def test_asking_does_not_take_the_lock(tmp_path: Path) -> None:
    """A run that begins while somebody asks all the time is not turned away."""
    run = write_run(tmp_path / "run")
    code = f"""
from pathlib import Path
from recipes.runs.status import locked
while True:
    print(locked(Path({str(run)!r})), flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        try:
            answers = {asking.stdout.readline().strip()}
            for _ in range(3):
                with holding(run) as process:
                    assert process.poll() is None  # it has the lock
                    while "True" not in answers:
                        answers.add(asking.stdout.readline().strip())
            assert asking.poll() is None  # it asked all the while
        finally:
            asking.kill()
    assert answers == {"False", "True"}


@pytest.mark.parametrize(
    ("error", "state", "code", "why"),
    [
        (None, FINISHED, 0, ""),
        (AlarmError("rankme fell", do="Look"), ALARM, 7, "rankme fell"),
        (TrainingError("the loss is not finite", where="run"), ERROR, 6, "the loss is not finite"),
        (KeyboardInterrupt(), INTERRUPTED, 130, "stopped by a second Ctrl-C, without saving"),
        (ZeroDivisionError("x"), ERROR, 1, "an error that should not happen (ZeroDivisionError)"),
    ],
)
def test_how_a_run_ended_is_kept(error: BaseException | None, state: str, code: int, why: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=error is None, status={"began": "2026-01-01T00:00:00Z", "total": 20})

    def work() -> None:
        with recorded(run):
            assert Run(run).status["state"] == RUNNING
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    assert Run(run).state == (state, why)
    assert Run(run).status["exit_code"] == code
    assert Run(run).status["began"] == "2026-01-01T00:00:00Z"
    assert Run(run).total == 20


def test_a_signal_is_an_interruption() -> None:
    from recipes.runs.status import ending
    from recipes.training.interrupt import Interrupted

    assert ending(Interrupted(15, 7, "run")) == (INTERRUPTED, 143, "stopped at step 7; everything up to it is saved")
    assert ending(StorageError("full"))[:2] == (ERROR, 5)


def test_a_run_of_another_version_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", lines=LINES[:4])
    (run / "config.resolved.yaml").write_text("method: other\nnew_section: {a: 1}\ntrain: {epochs: 5.0}\n")
    (run / "env.json").unlink()
    found = Run.open(run)
    assert (found.recipe, found.encoder, found.total) == ("other", "?", 50)
    assert {one.key for one in differences_from_recipe(found)[0]} >= {"new_section.a"}
    (run / "config.resolved.yaml").write_text("{ no yaml")
    assert (Run(run).recipe, Run(run).total) == ("?", None)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not a vfm run"):
        Run.open(tmp_path)


def test_runs_are_found_wherever_they_lie_but_not_in_recordings(tmp_path: Path) -> None:
    for place in ("a", "deep/er/b", "run/inner", ".hidden/c", "prepared/frames/d"):
        write_run(tmp_path / place)
    write_run(tmp_path / "run2")
    (tmp_path / "run" / "config.resolved.yaml").write_text("method: videomae\n")
    (tmp_path / "prepared" / "prepared.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert found == ["a", "deep/er/b", "run", "run2"]
    assert [path.name for path in find_runs(tmp_path, depth=0)] == ["a", "run", "run2"]
    assert list(find_runs(tmp_path / "a")) == [tmp_path / "a"]
    with pytest.raises(ConfigError, match="no such folder"):
        list(find_runs(tmp_path / "nowhere"))


def test_settings_that_differ_are_named_with_who_set_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", settings={"optim.lr": 0.5, "objective.mask_ratio": 0.75, "train.batch_size": 16})
    found, unknown = differences_from_recipe(Run(run))
    assert [tuple(one) for one in found] == [
        ("objective.mask_ratio", 0.75, 0.9, "command line"),
        ("optim.lr", 0.5, 1e-3, "command line"),
        ("train.steps", 20, None, "command line"),
    ], "a value that was typed and is the recipe's own is no difference"
    assert unknown == 0


def test_a_setting_that_mended_a_run_is_said_to(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", settings={"optim.lr": 0.5})
    (run / "changes.jsonl").write_text('{"after": [3], "optim.lr": [0.1, 0.5]}\n')
    assert differences_from_recipe(Run(run))[0][0].origin == "changed when it was resumed"


def test_settings_that_only_the_method_knows_are_counted_where_their_origin_is_not_kept(tmp_path: Path) -> None:
    for name, origins in (("kept", True), ("lost", False)):
        run = write_run(tmp_path / name, origins=origins)
        config = run / "config.resolved.yaml"
        config.write_text(config.read_text().replace("objective:\n", "objective:\n  new_thing: 3\n"))
    assert (
        len(differences_from_recipe(Run(tmp_path / "kept"))[0]),
        differences_from_recipe(Run(tmp_path / "kept"))[1],
    ) == (1, 0)
    assert differences_from_recipe(Run(tmp_path / "lost"))[1] == 1


def test_differences_of_runs_and_of_their_environments(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", settings={"optim.lr": 0.5})
    (two / "env.json").write_text(json.dumps({"packages": {"torch": "2.11.0"}, "cpus": 2, "gpus": []}))
    assert differences([Run(one), Run(two)]) == [("optim.lr", [1e-3, 0.5])]
    assert environments([Run(one), Run(two)]) == [("packages.torch", ["2.13.0", "2.11.0"]), ("gpus", ["-", []])]
    assert is_same(1, 1.0)
    assert is_same((1, 2), [1.0, 2])
    assert not is_same(True, 1)


def test_checkpoints_are_listed_with_what_is_wrong_with_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_checkpoint(run, 10)
    write_checkpoint(run, 20, whole=False, latest=True)
    (run / "checkpoints" / "step_00000030.tmp").mkdir()
    found = Run(run).checkpoints()
    assert [(one.step, one.whole, one.marks) for one in found] == [(10, True, ()), (20, False, ("latest",))]
    assert bytes_of(run / "checkpoints" / found[0].name) == found[0].bytes > 100


def test_pictures_are_drawn_of_one_run_and_of_several(tmp_path: Path) -> None:
    from PIL import Image

    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": 0.5, "late": 1.0}]
    draw_curves({"": series_of(rows)}, tmp_path / "one.png", marks=[2.0])
    draw_curves({"a": series_of(rows), "b": series_of(LINES)}, tmp_path / "two.png")
    draw_curves({"": {}}, tmp_path / "none.png")
    sizes = [Image.open(tmp_path / f"{name}.png").size for name in ("one", "two", "none")]
    assert sizes[1][1] > sizes[0][1], "a legend below"
    assert sizes[2][0] == sizes[0][0]

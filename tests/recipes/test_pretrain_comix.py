"""CoMix: its contrasts by hand, two folders in one stream, and what a run leaves behind."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_factory import SMALL, build, make_batch, small_encoder
from safetensors.torch import load_file
from store_factory import Made, make_prepared
from torch.nn import functional as F

from domains.base import AugmentPolicies, ClipSettings
from domains.errors import ConfigError, DataError, MediaError
from domains.store.clips import Clip
from recipes.config import Layer, parse_assignments, resolve
from recipes.finetune.head import load_head
from recipes.jobs.finetune import finetune, load_model
from recipes.jobs.pretrain import pretrain
from recipes.jobs.seen import meetings
from recipes.parts.contrast import nt_xent
from recipes.parts.supcon import sup_con
from recipes.pretrain.comix import CoMix, mixed, slow_frames
from recipes.runs.status import RECORD
from recipes.training.data import ClipData, PairedData, StreamSampler, collate
from recipes.training.reporter import SilentReporter

# --- supervised contrast


def test_two_views_of_unlike_labels_are_nt_xent() -> None:
    views = torch.randn(5, 2, 7, requires_grad=True)
    loss = sup_con(views, torch.arange(5), 0.2)
    torch.testing.assert_close(loss, nt_xent(views[:, 0], views[:, 1], 0.2))
    (slope,) = torch.autograd.grad(loss, views)
    (expected,) = torch.autograd.grad(nt_xent(views[:, 0], views[:, 1], 0.2), views)
    torch.testing.assert_close(slope, expected)


def test_positives_are_averaged_outside_the_logarithm() -> None:
    """Against the formula, sample by sample; the official factor tau / 0.07 is not there."""
    views, labels = torch.randn(4, 3, 6), [0, 1, 0, 2]
    z = F.normalize(views.flatten(0, 1), dim=-1)  # views of a sample beside each other
    own = [labels[i // 3] for i in range(12)]
    total = 0.0
    for i in range(12):
        scores = [math.exp((z[i] @ z[k]).item() / 0.5) for k in range(12)]
        others = sum(scores) - scores[i]
        positives = [scores[k] / others for k in range(12) if k != i and own[k] == own[i]]
        total -= sum(math.log(share) for share in positives) / len(positives)
    found = sup_con(views, torch.tensor(labels), 0.5).item()
    assert found == pytest.approx(total / 12, abs=1e-5)
    assert found != pytest.approx(total / 12 * 0.5 / 0.07, rel=0.1)


def test_samples_that_do_not_count_are_not_there() -> None:
    views, labels = torch.randn(5, 2, 6, requires_grad=True), torch.tensor([0, 1, 0, 1, 0])
    kept = torch.tensor([True, False, True, True, False])
    loss = sup_con(views, labels, 0.5, kept)
    torch.testing.assert_close(loss, sup_con(views[kept], labels[kept], 0.5))
    (slope,) = torch.autograd.grad(loss, views)
    assert slope[~kept].abs().max() == 0
    nothing = sup_con(views, labels, 0.5, torch.zeros(5, dtype=torch.bool))
    assert nothing.item() == 0
    (slope,) = torch.autograd.grad(nothing, views)
    assert slope.abs().max() == 0


# --- clips


def test_a_slow_clip_holds_one_frame_of_each_part() -> None:
    order = slow_frames(torch.arange(60), 16, (0.25, 0.75), "x")
    kinds = {4: 0, 12: 0}
    for row in order.tolist():
        distinct = sorted(set(row))
        kinds[len(distinct)] += 1
        if len(distinct) == 4:
            assert [row[4 * part] // 4 for part in range(4)] == [0, 1, 2, 3]
            assert all(len(set(row[4 * part : 4 * part + 4])) == 1 for part in range(4))
        assert row == sorted(row)
    assert min(kinds.values()) > 15
    assert slow_frames(torch.arange(3), 4, (0.01,), "x").unique(dim=1).shape == (3, 1)  # at least one


def test_another_domains_background_shines_through() -> None:
    clip = torch.full((2, 3, 1, 1, 1), 4.0)
    other = (
        torch.tensor([0.0, 8.0, 9.0]).view(1, 3, 1, 1, 1).expand(2, -1, -1, -1, -1)
    )  # what passes through is not background
    found = mixed(clip, other, torch.tensor([0.0, 0.25]).view(2, 1, 1, 1, 1))
    assert found[0].flatten().tolist() == [4, 4, 4]
    assert found[1].flatten().tolist() == [5, 5, 5]  # 0.75 * 4 + 0.25 * 8


# --- the loss


def test_the_loss_is_the_weighted_sum() -> None:
    objective = build("comix", weight_mix=0.3, weight_labels=0.7, confidence=0.0)
    losses = {key: value.item() for key, value in objective(make_batch(objective)).items()}
    mix = losses["loss_mix_source"] + losses["loss_mix_target"]
    assert losses["loss"] == pytest.approx(losses["loss_labels"] + 0.3 * mix + 0.7 * losses["loss_guessed"], abs=1e-5)
    assert losses["sure"] == 1
    assert losses["loss_guessed"] > 0
    unsure = build("comix", confidence=1.0)
    assert unsure(make_batch(unsure))["loss_guessed"].item() == 0


def test_guesses_do_not_teach_the_classifier() -> None:
    slopes = []
    for weight in (0.0, 10.0):
        objective = build("comix", weight_labels=weight, confidence=0.0)
        objective(make_batch(objective))["loss"].backward()
        assert isinstance(objective, CoMix)
        slopes.append((objective.classify.weight.grad.clone(), objective.project[0].weight.grad.clone()))
    torch.testing.assert_close(slopes[0][0], slopes[1][0])
    assert not torch.allclose(slopes[0][1], slopes[1][1])


# --- two folders


def paired(tmp_path: Path) -> PairedData:
    clip, policies = ClipSettings(frames=4, size=32, stride=2), AugmentPolicies()
    own = make_prepared(tmp_path / "own", videos=5, patients=5, size=40, frames=16).prepared
    other = make_prepared(tmp_path / "other", videos=3, patients=3, size=48, frames=16, seed=1, channels=3).prepared
    target = ClipData(own, range(5), {"target": Clip()}, clip, policies, seed=3)
    labels = {"label": torch.tensor([2, 0, 1]).numpy()}
    return PairedData(target, ClipData(other, range(3), {"source": Clip()}, clip, policies, seed=4, targets=labels))


def test_a_stream_of_both_in_the_epochs_of_each(tmp_path: Path) -> None:
    data = paired(tmp_path)
    samples = [data[position] for position in range(15)]
    assert [sorted(sample["row"] for sample in samples[5 * e : 5 * e + 5]) for e in range(3)] == [[0, 1, 2, 3, 4]] * 3
    labels = [int(sample["targets"]["label"]) for sample in samples]
    assert [sorted(labels[3 * e : 3 * e + 3]) for e in range(5)] == [[0, 1, 2]] * 5
    assert len({(sample["row"], label) for sample, label in zip(samples, labels, strict=True)}) >= 8  # partners change
    again = paired_again(tmp_path)
    for position in (3, 14):  # from any point, as a run that goes on has it
        one, other = data[position], again[position]
        assert one["seed"] == other["seed"]
        for view in ("target", "source"):
            assert (one["views"][view].frames == other["views"][view].frames).all()
    collated = collate(samples[:4])
    assert collated["views"]["source"]["frames"].shape == (4, 4, 32, 32, 3)
    assert collated["views"]["target"]["frames"].shape == (4, 4, 32, 32, 1)
    assert collated["targets"]["label"].tolist() == labels[:4]


def paired_again(tmp_path: Path) -> PairedData:
    from domains.store.prepared import Prepared

    clip, policies = ClipSettings(frames=4, size=32, stride=2), AugmentPolicies()
    own, other = Prepared.open(tmp_path / "own"), Prepared.open(tmp_path / "other")
    target = ClipData(own, range(5), {"target": Clip()}, clip, policies, seed=3)
    labels = {"label": torch.tensor([2, 0, 1]).numpy()}
    return PairedData(target, ClipData(other, range(3), {"source": Clip()}, clip, policies, seed=4, targets=labels))


def test_one_process_or_two_the_pairs_are_the_same(tmp_path: Path) -> None:
    data = paired(tmp_path)

    def pairs(world: int, batch: int) -> list[list[tuple[int, int]]]:
        ranks = [list(StreamSampler(batch, 1, rank, world, 0, 3)) for rank in range(world)]
        steps = [[position for rank in ranks for position in rank[step]] for step in range(3)]
        return [[(data.place(p)[1], data.source.place(p)[1]) for p in step] for step in steps]

    assert pairs(1, 4) == pairs(2, 2)


def test_the_labels_are_part_of_what_is_learned_from(tmp_path: Path) -> None:
    data = paired(tmp_path)
    before = data.fingerprint()
    data.source.targets["label"] = torch.tensor([2, 0, 2]).numpy()
    assert data.fingerprint() != before


def test_what_neither_folder_could_give_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = paired(tmp_path)

    def damaged(index: int, wanted: list[int]) -> Any:
        raise MediaError("x.mjpeg", "damaged")

    monkeypatch.setattr(data.source.prepared, "frames", damaged)
    sample = data[0]
    assert "views" not in sample
    assert all("damaged" in reason for reason in sample["failures"])


# --- runs


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made, Made]:
    root = tmp_path_factory.mktemp("comix")
    own = make_prepared(root / "own", videos=8, patients=8, size=40, frames=16)
    other = make_prepared(root / "other", videos=9, patients=9, size=40, frames=16, seed=1)
    small_encoder().save(root / "encoder")
    return root, own, other


def settings(folders: tuple[Path, Made, Made], *words: str, method: str = "comix") -> Any:
    root, own, other = folders
    values = {
        "method": method, "objective": SMALL[method], "encoder": {"name": str(root / "encoder")},
        "data": {
            "path": str(own.prepared.folder), "workers": 0,
            "source": {"path": str(other.prepared.folder), "task": "view", "labels": str(other.labels)},
        },
        "clip": {"frames": 4, "size": 32, "stride": 2},
        "train": {"steps": 2, "batch_size": 4, "log_every": 1, "save_every": 1, "keep": 9, "precision": "fp32"},
    }  # fmt: skip
    return resolve([Layer("test", values), Layer("command line", parse_assignments(words))])


def test_a_run_leaves_a_classifier_and_says_whom_it_met(folders: tuple[Path, Made, Made], tmp_path: Path) -> None:
    _, own, other = folders
    pretrain(settings(folders), tmp_path / "straight", reporter=SilentReporter())
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    pretrain(settings(folders), tmp_path / "again", from_step=1, reporter=SilentReporter())
    ends = [
        load_file(tmp_path / out / "checkpoints/step_00000002/objective.safetensors") for out in ("straight", "again")
    ]
    assert all(value.equal(ends[1][key]) for key, value in ends[0].items())

    run = tmp_path / "straight"
    model = load_model(run)
    assert model.settings.classes == ("A2C", "A4C", "PLAX")
    assert model.head.weight.equal(ends[0]["classify.weight"])
    predicted = model.predict(torch.randn(2, 4, 3, 32, 32))
    torch.testing.assert_close(predicted.sum(dim=1), torch.ones(2))
    assert load_head(small_encoder(), run).settings.task == "view"

    met = json.loads((run / "seen.json").read_text())
    assert (met["task"], len(met["patients"]), met["also"][0]["task"]) == ("", 8, "view")
    assert set(met["also"][0]["patients"]) == set(other.prepared.patients)
    (said,) = meetings(run, own.prepared, own.prepared.patients)
    assert "8 of the 8 tested patients, without their labels" in said
    (said,) = meetings(run, other.prepared, other.prepared.patients[:4])
    assert "4 of the 4 tested patients, with their labels of view, which flatters it" in said
    record = json.loads((run / RECORD).read_text())
    assert (record["source"]["task"], record["data"]["videos"], record["source"]["videos"]) == ("view", 8, 9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.source.path=''"], "'comix' learns from labels of another domain, and 'data.source.path' is not set"),
        (["data.source.task=''"], "'data.source.task' is not set.*data.source.task=view"),
        (["data.source.task=ef"], "'comix' learns classes, and ef is a number"),
        (["data.source.task=veiw"], "Did you mean 'view'"),
        (["objective.classes=[a, b]"], "'objective.classes' is a, b, and the labels have A2C, A4C, PLAX"),
        (["data.source.lables=x.csv"], "unknown key 'data.source.lables'.*Did you mean 'data.source.labels'"),
    ],
)
def test_what_is_missing_is_one_line(
    folders: tuple[Path, Made, Made], tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain(settings(folders, *words), tmp_path / "run", reporter=SilentReporter())
    assert not (tmp_path / "run").exists()


def test_labels_that_say_nothing_are_refused(folders: tuple[Path, Made, Made], tmp_path: Path) -> None:
    lines = folders[2].labels.read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([lines[0], *(line for line in lines if line.endswith("A2C"))]))
    with pytest.raises(DataError, match="labelled recordings all have the same view"):
        pretrain(
            settings(folders, f"data.source.labels={tmp_path / 'labels.csv'}"),
            tmp_path / "run",
            reporter=SilentReporter(),
        )


def test_others_refuse_a_second_folder(folders: tuple[Path, Made, Made], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'data.source' is for methods that adapt between domains, and 'videomae' is none"
    ):
        pretrain(settings(folders, method="videomae"), tmp_path / "run", reporter=SilentReporter())
    with pytest.raises(ConfigError, match=r"'data.source' is for pretraining"):
        finetune(settings(folders), tmp_path / "run", reporter=SilentReporter())

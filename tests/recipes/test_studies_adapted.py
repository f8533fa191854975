"""`jobs.finetune` at the level of studies with an encoder that learns with the head: gradients, pieces, and a run that ends as others do."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from interrupt_factory import Killed, dies_at
from safetensors.torch import load_file
from store_factory import make_prepared

from domains.base import ClipSettings, TaskSettings
from domains.errors import ConfigError
from domains.store.clips import clips_from
from domains.store.labels import read_labels
from domains.store.manifest import frame_file
from domains.store.studies import label_studies
from recipes.config import EncoderSettings, Layer, LoRASettings, resolve
from recipes.encoders.adapt import adapt
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import VideoMAEEncoder, fresh_videomae
from recipes.evaluate.described import Said, describe_recordings
from recipes.evaluate.features import clip_of
from recipes.evaluate.studies import StudyClips, StudyData, Views, answers
from recipes.finetune import defaults
from recipes.finetune.study import UNKNOWN, StudyHeadSettings, StudyObjective
from recipes.finetune.study_clips import StudyClipsObjective
from recipes.jobs.finetune import finetune
from recipes.jobs.predict import predict
from recipes.jobs.replay import replay_run
from recipes.objective import Batch
from recipes.parts.gradient_cache import GradientCache
from recipes.runs.run import Run
from recipes.training.data import to_batch
from recipes.training.reporter import SilentReporter

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16, "tubelet_size": 2}
GEOMETRY = Geometry(frames=4, size=32, rate=6.25)
CLIP = ClipSettings(frames=4, size=32, rate=6.25)
EF = TaskSettings(kind="regression", column="ef")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapted")
    prepared, labels = make_prepared(root / "prepared", videos=45, patients=20, frames=20, size=32)
    fresh_videomae(GEOMETRY, seed=0, hidden_size=16, **SMALL).save(root / "encoder")
    return root, prepared, labels


@pytest.fixture(scope="module")
def described(made):
    root, prepared, labels = made
    encoder = fresh_videomae(GEOMETRY, seed=0, hidden_size=16, **SMALL)
    found, _ = describe_recordings(encoder, prepared, range(45), clip_of(GEOMETRY), 2, root / "described")
    return found, label_studies(read_labels(labels, EF, prepared, None), prepared, "ef")


def objective_of(mode="lora", **over) -> StudyClipsObjective:
    """A head whose every weight is at work, over a tiny encoder; LoRA's B, which begins at 0, as well."""
    encoder = fresh_videomae(GEOMETRY, seed=0, hidden_size=16, **SMALL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapt(encoder, EncoderSettings(mode=mode, last_k=1, lora=LoRASettings(rank=2)))
        settings = {"task": "ef", "kind": "regression", "mean": 50.0, "std": 10.0, "channels": 32, "width": 8, **over}
        objective = StudyClipsObjective(encoder, StudyHeadSettings(**settings), head_scale=3.0)
        with torch.no_grad():
            for name, value in objective.named_parameters():
                if "lora_B" in name or name in ("head.score.weight", "head.answer.weight"):
                    value.normal_(std=0.3)
            objective.head.first_weight.normal_(std=0.1)
    return objective


def clips_of(described, prepared, clips=4, drop=0.3) -> StudyClips:
    found, studies = described
    offset = np.random.default_rng(0).normal(size=(45, 1)).astype(np.float32)
    views = StudyClipsObjective.views
    told = Views.unknown(prepared)
    return StudyClips(
        found, studies, told, offset, views, CLIP, clips=clips, drop=drop, seed=2
    )  # fmt: skip


def batch_of(data: StudyClips, count: int = 5) -> Batch:
    return to_batch(data.collate([data[position] for position in range(count)]), GEOMETRY, CPU)


def gradients(objective):
    found = {name: one.grad.clone() for name, one in objective.named_parameters() if one.grad is not None}
    objective.zero_grad()
    return found


def test_an_answer_is_that_of_the_head_over_descriptions_and_the_probe_follows_the_encoder():
    """What is compared clip by clip is what the frozen head says of the same studies, filled up."""
    objective = objective_of().eval()
    frozen = StudyObjective(objective.settings).eval()
    frozen.head.load_state_dict(objective.head.state_dict())
    x, off = torch.randn(5, 32), torch.randn(5, 1)
    head = {f"head.{name}": value.expand(5, *value.shape) for name, value in objective.head.named_parameters()}
    found = objective.compare({
        **head, "descriptions": x, "study": torch.tensor([0, 0, 1, 1, 1]), "view": torch.full((5,), UNKNOWN), "first": off,
        "target": torch.tensor([40.0, 40, 60, 60, 60]),
    })  # fmt: skip
    first = objective.head.first(x) + off

    def filled(values):
        return torch.stack([torch.cat([values[:2], torch.full_like(values[:1], 7)]), values[2:]])

    wanted = frozen(Batch({}, torch.zeros(2), {
        "descriptions": filled(x), "inside": torch.tensor([[1.0, 1, 0], [1, 1, 1]]), "view": torch.full((2, 3), UNKNOWN), "first": filled(first),
        "target": torch.tensor([40.0, 60]),
    }))  # fmt: skip
    assert found.keys() == wanted.keys()
    for name in found:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-6, atol=1e-6)


def test_studies_are_drawn_as_for_a_frozen_encoder_and_their_clips_stay_together(made, described):
    found, studies = described
    data = clips_of(described, made[1], clips=2)
    same = StudyData(found, studies, data.view, data.first, clips=2, drop=0.3, seed=2)
    for position in range(30):
        clips, targets = data[position]["clips"], same[position]["targets"]
        assert 1 <= len(clips) <= 2
        np.testing.assert_array_equal(
            found.read([clip["row"] for clip in clips]), targets["descriptions"][targets["inside"] == 1]
        )
        assert {clip["targets"]["target"] for clip in clips} == {targets["target"]}
        for clip in clips:  # whole frames, as the probe was taught and as predictions see them
            seen = clip["views"]["clip"]
            whole = clips_from(made[1], clip["row"], CLIP, np.array([seen.start]))[0]
            np.testing.assert_array_equal(seen.frames, whole)
            assert (seen.flip, seen.brightness, seen.contrast) == (False, 0, 1)
    starts = {
        clip["views"]["clip"].start for position in range(30) for clip in data[position]["clips"] if clip["row"] == 0
    }
    assert len(starts) > 1
    batch = batch_of(data)
    samples = [data[position]["clips"] for position in range(5)]
    assert batch.targets["study"].tolist() == [n for n, clips in enumerate(samples) for _ in clips]
    assert batch.index.tolist() == [clip["row"] for clips in samples for clip in clips]
    assert batch["clip"].shape == (len(batch), 4, 3, 32, 32)
    lost = data.collate([data[0], {"failures": ["gone"]}])
    assert lost == {"failures": ["gone"]}


@pytest.mark.parametrize(
    ("mode", "learns"),
    [("lora", "lora_"), ("last_k", "encoder.model.encoder.layer.0.|layernorm"), ("full", "encoder.model.")],
)
def test_gradients_reach_what_the_mode_names_and_nothing_else(made, described, mode, learns):
    objective = objective_of(mode)
    objective(batch_of(clips_of(described, made[1])))["loss"].backward()
    found = gradients(objective)
    assert all(name.startswith("head.") or any(part in name for part in learns.split("|")) for name in found)
    wanted = {name for name, one in objective.named_parameters() if one.requires_grad}
    assert set(found) == wanted
    # A bias of keys shifts all scores of a query alike, which the softmax does not see.
    still = {name for name, slope in found.items() if not slope.abs().max() > 0}
    assert all("key" in name or name.startswith("head.of_view") for name in still)
    if mode == "lora":
        assert sum("lora_" in name for name in found) >= 4


def test_pieces_have_the_gradients_of_the_whole(made, described):
    """Pieces that cut studies in two, and of any size."""
    objective, batch = objective_of().double(), batch_of(clips_of(described, made[1]))
    batch = replace(
        batch, clips={name: clip.double() for name, clip in batch.clips.items()}
    )  # rounding is no part of it
    assert len(batch) > 7
    losses = objective(batch)
    losses["loss"].backward()
    whole = gradients(objective)
    for size in (1, 3, len(batch)):
        cache = GradientCache(batch.pieces(size), objective.embed, objective.compare)
        for piece, slopes in cache:
            assert len(piece) <= size
            objective(piece, slopes)["loss"].backward()
        torch.testing.assert_close(cache.losses["loss"], losses["loss"], rtol=1e-6, atol=1e-6)
        split = gradients(objective)
        assert split.keys() == whole.keys()
        for name in whole:
            torch.testing.assert_close(split[name], whole[name], rtol=1e-4, atol=1e-6, msg=name)


def test_what_an_encoder_says_now_follows_its_weights_and_is_what_would_be_written(made, described):
    found, _ = described
    encoder = fresh_videomae(GEOMETRY, seed=0, hidden_size=16, **SMALL).train()
    now = Said(encoder, made[1], clip_of(GEOMETRY), 2)
    np.testing.assert_allclose(now.read([4, 2]), found.read([4, 2]), rtol=1e-6, atol=1e-7)
    assert encoder.training
    with torch.no_grad():
        encoder.final_norm.weight.mul_(2)
    assert np.abs(now.read([4, 2]) - found.read([4, 2])).max() > 0.1


def settings(root, labels, **over):
    values = {
        "encoder": {"name": str(root / "encoder"), "lora": {"rank": 4}},
        "data": {"path": str(root / "prepared"), "workers": 0},
        "clip": {"frames": 4, "size": 32, "rate": 6.25},
        "task": {"name": "ef", "labels": str(labels), "folds": 5, "clips_per_video": 2, "study": {"width": 8}},
        "train": {"epochs": 3, "batch_size": 4, "piece": 3, "log_every": 1, "save_every": 4, "precision": "fp32"},
    }
    for key, value in over.items():
        place = values
        *path, name = key.split("__")
        for part in path:
            place = place.setdefault(part, {})
        place[name] = value
    return resolve([defaults(of_studies=True, mode="lora"), Layer("test", values)])


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(made):
    root, _, labels = made
    reporter = SilentReporter()
    return finetune(settings(root, labels), root / "runs" / "ef", reporter=reporter), reporter


def test_the_run_leaves_what_runs_of_studies_and_of_adapters_leave(made, finished):
    run, reporter = finished
    found = json.loads((run / "evaluation.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["constant", "single", "mean", "views", "study"]
    assert found["rows"][-1]["title"] == "attention over all clips, encoder adapted (lora)"
    assert any("of the encoder as the run began" in note for note in found["notes"])
    assert "the encoder learns with the head (lora); at most 3 of 12 clips in it at once" in reporter.notes
    lines = table(run / "attention.csv")
    for study in {line["study"] for line in lines}:
        own = [line for line in lines if line["study"] == study]
        assert sum(float(line["attention"]) for line in own) == pytest.approx(1, abs=1e-3)
        # All clips of the study, not those that a step would draw.
        assert len(own) == made[1].column("study").count(study)
    start, after = (load_file(at / "model.safetensors") for at in (made[0] / "encoder", run / "encoder"))
    changed = {name for name in start if not torch.equal(start[name], after[name])}
    assert changed
    assert all("attention" in name or "dense" in name for name in changed)
    assert {path.name for path in (run / "adapter").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    record = Run(run).record
    assert (record["mode"], record["level"], record["views"]) == ("lora", "study", "probe")
    assert 0 < record["trained_parameters"] < 0.5 * record["parameters"]
    page = (run / "report.html").read_text()
    assert "features that the encoder gave before it was adapted" in page
    figures = Run(run).rows[-1].keys()
    assert {"rankme", "val_mae", "clips_used", "loss"} <= figures
    assert Run(run).state == ("finished", "")
    # What the encoder said before it learned anything is written once, for those that leave it frozen as well; and what it says of the tested now.
    assert len(list((made[0] / "runs" / "features").iterdir())) == 2


def test_it_begins_as_the_frozen_head_begins(made, finished):
    """LoRA begins at nothing, and so do the head's weights: the first loss is the error of probes that saw none of these patients."""
    losses = [row["loss"] for row in Run(finished[0]).rows]
    assert losses[0] == pytest.approx(0.5, abs=0.4)
    assert all(np.isfinite(losses))


def test_the_run_alone_says_the_same_of_the_same_studies(made, finished, tmp_path):
    run, prepared = finished[0], made[1]
    found = predict(run, prepared, tmp_path / "said", reporter=SilentReporter())
    assert (found.task, found.recordings, found.failed) == ("ef", len(prepared), ())
    now = {line["study"]: line["prediction"] for line in table(found.where)}
    tested = [line for line in table(run / "predictions.csv") if line["encoder"] == "study"]
    assert tested
    for line in tested:
        assert float(now[line["study"]]) == pytest.approx(float(line["prediction"]), rel=1e-5)
    again = {line["video_id"]: line for line in table(tmp_path / "said" / "attention.csv")}
    for line in table(run / "attention.csv"):
        assert {**again[line["video_id"]], "truth": line["truth"]} == line


def test_interrupted_and_resumed_ends_as_the_uninterrupted_run(made, finished, monkeypatch):
    root, _, labels = made
    steps = dies_at(monkeypatch, 6)
    again = root / "runs" / "again"
    with pytest.raises(Killed):
        finetune(settings(root, labels), again, reporter=SilentReporter())
    finetune(settings(root, labels), again, resume=True, reporter=SilentReporter())
    assert steps == [6]
    for name in ("encoder/model.safetensors", "adapter/adapter_model.safetensors", "head.safetensors"):
        one, two = load_file(finished[0] / name), load_file(again / name)
        assert all(torch.equal(one[key], two[key]) for key in one), name
    for name in ("evaluation.json", "predictions.csv", "attention.csv"):
        assert (finished[0] / name).read_text() == (again / name).read_text()


def test_a_run_in_pieces_learns_what_one_in_one_piece_learns(made, tmp_path, monkeypatch):
    """And has no more clips with activations in the encoder than a piece holds."""
    root, _, labels = made
    real, held = VideoMAEEncoder.forward, []

    def forward(self, pixel_values, visible=None):
        if torch.is_grad_enabled() and not pixel_values.is_meta:  # a step is counted on paper as well
            held.append(len(pixel_values))
        return real(self, pixel_values, visible)

    monkeypatch.setattr(VideoMAEEncoder, "forward", forward)
    same = {
        "encoder__lora__dropout": 0.0,
        "task__dropout": 0.0,
        "train__steps": 3,
        "task__study__features": str(tmp_path / "features"),
    }
    found = {}
    for title, piece in (("whole", None), ("pieces", 2)):
        run = finetune(settings(root, labels, train__piece=piece, **same), tmp_path / title, reporter=SilentReporter())
        found[title] = load_file(run / "checkpoints" / "step_00000003" / "objective.safetensors")
        assert max(held) == 2 if piece else max(held) > 4
        held.clear()
    start = objective_of().state_dict()
    assert found["whole"].keys() >= {name for name in start if "lora_" in name}
    for name, value in found["whole"].items():
        torch.testing.assert_close(found["pieces"][name], value, rtol=1e-3, atol=2e-5, msg=name)
    moved = [name for name, value in found["whole"].items() if "lora_B" in name and value.abs().max() > 1e-4]
    assert len(moved) >= 2


def test_classes_and_a_recording_that_breaks_while_a_run_learns(made, tmp_path, monkeypatch):
    root = made[0]
    prepared, labels = make_prepared(tmp_path / "prepared", videos=30, patients=15, frames=12, size=32, seed=3)
    lines = table(labels)
    labels.write_text(
        "video_id,poor,view\n"
        + "".join(f"{one['video_id']},{'yes' if float(one['ef']) < 47 else 'no'},{one['view']}\n" for one in lines)
    )
    (tmp_path / "ours.yaml").write_text(
        "name: ours\ntitle: Ours\ntasks:\n  poor: {kind: classification, column: poor}\n"
        "  view: {kind: classification, column: view}\n"
    )
    import recipes.jobs.studies as job

    broken, real = [], job.build_head

    def build(config, encoder, material, reporter):
        row = material.train.rows[0][0]
        broken.append(prepared.video_id(row))
        frame_file(prepared.folder, broken[0]).write_bytes(b"")
        return real(config, encoder, material, reporter)

    monkeypatch.setattr(job, "build_head", build)
    reporter = SilentReporter()
    resolved = settings(
        root, labels, data__path=str(prepared.folder), domain=str(tmp_path / "ours.yaml"), task__name="poor", task__study__views="labels",
        task__balance=True, train__epochs=2, data__max_failures=1.0, encoder__mode="full",
    )  # fmt: skip
    run = finetune(resolved, tmp_path / "runs" / "poor", reporter=reporter)
    assert any(broken[0] in warning for warning in reporter.warnings)
    found = json.loads((run / "evaluation.json").read_text())
    assert (found["headline"], found["classes"]) == ("accuracy", ["no", "yes"])
    assert {line["alone"] for line in table(run / "attention.csv")} <= {"no", "yes"}
    assert not (run / "adapter").exists()


def test_a_step_that_is_not_finite_can_be_run_again(made, tmp_path, monkeypatch):
    from domains.errors import TrainingError

    root, _, labels = made
    real = StudyClipsObjective.embed

    def embed(self, batch):
        found = real(self, batch)
        return {**found, "descriptions": found["descriptions"] * torch.nan}

    with monkeypatch.context() as patch:
        patch.setattr(StudyClipsObjective, "embed", embed)
        with pytest.raises(TrainingError, match="loss of step 1 is not finite"):
            finetune(settings(root, labels), tmp_path / "run", reporter=SilentReporter())
    broken, again = replay_run(tmp_path / "run")
    assert broken.objective == "study_clips"
    assert again.finite


def test_what_cannot_be_is_one_line(made, tmp_path, monkeypatch):
    root, _, labels = made
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="learned by one process"):
        finetune(settings(root, labels), tmp_path / "run", reporter=SilentReporter())
    assert not (tmp_path / "run").exists()


def test_a_new_head_says_of_a_study_what_the_probes_mean_says(made, described):
    """The encoder that has learned nothing, and the head that has not either: the same answer as over descriptions that were written."""
    found, studies = described
    objective = objective_of()
    for name, value in objective.named_parameters():
        if "lora_B" in name or name in ("head.score.weight", "head.answer.weight"):
            torch.nn.init.zeros_(value)
    now = Said(objective.encoder, made[1], clip_of(GEOMETRY), 2)
    views = Views.unknown(made[1])
    one, two = (answers(objective, source, studies.rows[:3], views) for source in (found, now))
    for a, b, rows in zip(one, two, studies.rows, strict=False):
        assert float(a.prediction) == pytest.approx(float(b.prediction), rel=1e-5)
        mean = float(objective.head.first(torch.from_numpy(found.read(rows))).mean())
        assert float(a.prediction) == pytest.approx(50 + 10 * mean, rel=1e-5)

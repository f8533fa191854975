"""Drafts from similar studies: statements that reports share, studies that are alike clip by clip, and what is written of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from collection_factory import collected
from store_factory import make_prepared

from domains.base import ClipSettings, StoreSettings
from domains.errors import ConfigError, DataError, ModelError
from recipes.encoders.base import Geometry
from recipes.encoders.videomae import fresh_videomae
from recipes.evaluate import similar
from recipes.evaluate.collecting import Stretches
from recipes.evaluate.collection import About, Collection
from recipes.evaluate.findings import Report, Statement, shared_findings, statements
from recipes.evaluate.similar import Asked, nearest_studies
from recipes.jobs.findings import draft_reports, summary
from recipes.jobs.search import embed
from vfm_cli.console import run_guarded
from vfm_cli.main import cli

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 16,
    "tubelet_size": 2,
}
NAMED = "Reported by Dr Grieg on 12.03.2021 for MRN 12345678."


def report(ef: float, extra: str = "") -> str:
    size = "dilated" if ef < 45 else "of normal size"
    return f"Findings: The left ventricle is {size}. Heart rate {60 + ef / 10:.0f} per minute.\nConclusion: Ejection fraction {ef:.0f} %.\n{extra}"


def test_a_report_is_cut_into_statements_under_their_headings():
    found = statements(
        "Findings: The wall is thin. It is 0.9 cm thick;\nno effusion\n\nAll seen.\nConclusion:\nNormal.\n---"
    )
    assert [(one.section, one.words) for one in found] == [
        ("Findings", "The wall is thin."),
        ("Findings", "It is 0.9 cm thick;"),
        ("Findings", "no effusion"),
        ("", "All seen."),
        ("Conclusion", "Normal."),
    ]
    assert Statement("A", "EF  55 %.").shape == Statement("a", "ef 48,5 %").shape
    assert Statement("A", "EF 48,5 to 50 %").numbers == (48.5, 50.0)


def test_what_two_patients_share_is_said_with_the_range_of_its_numbers():
    reports = ["F: EF 55 %. Wall thin. Only here.", "F: EF 48 %. Wall thick.", "F: ef 61 %. Wall thick.", "Wall thin."]
    found, withheld = shared_findings([Report.of(one) for one in reports], ["p", "q", "r", "p"])
    assert [(one.section, one.words, one.reports) for one in found] == [
        ("F", "EF 48 to 61 %.", (0, 1, 2)),
        ("F", "Wall thick.", (1, 2)),
    ]  # "Wall thin." is under a heading in one report and under none in the other
    assert withheld == {"said by fewer than 2 patients' reports": 3}
    again, _ = shared_findings([Report.of("Wall thin.")] * 2, ["p", "p"])
    assert again == []


@pytest.mark.parametrize(
    "line",
    [
        NAMED, "Patient ID 77", "seen on 2021-03-12", "call 555 12 34", "write to a@b.org", "Name: Castell", "Signed: someone",
        "Study S00100007 of today", "referred by the clinic",
    ],
)  # fmt: skip
def test_what_may_name_somebody_is_not_repeated_however_many_say_it(line):
    found, withheld = shared_findings([Report.of(f"Thin wall.\n{line}")] * 2, ["p", "q"])
    assert [one.words for one in found] == ["Thin wall."]
    assert withheld["may name somebody"] == 2


@pytest.mark.parametrize(
    "line",
    ["Heart rate 72 per minute.", "Ejection fraction 55 to 60 %.", "E/A 1.25, gradient 3.5 mmHg.", "Grade 1 of 3."],
)
def test_plain_measurements_are_no_names(line):
    found, _ = shared_findings([Report.of(line)] * 2, ["p", "q"])
    assert " ".join(one.words for one in found) == line


def collection_of(folder: Path, angles: dict[str, list[float]]) -> Collection:
    about = About(
        format=1, vfm="0", model="m", fingerprint="f", words=False, width=2, data="d", domain="echo", key=None, store=StoreSettings(),
        clip=ClipSettings(frames=4, size=32, rate=4.0, stride=2), every=None, vectors=0, recordings=0,
    )  # fmt: skip

    def stretches():
        for name, turned in angles.items():
            angle = np.deg2rad(turned)
            starts = np.arange(len(angle)) * 1.0
            yield Stretches(name, starts * 4, starts, starts + 1), np.stack([np.cos(angle), np.sin(angle)], axis=1)

    collected(folder, about, stretches())
    return Collection.open(folder)


def asked(name: str, turned: list[float]) -> Asked:
    angle = np.deg2rad(turned)
    return Asked(name, np.arange(len(angle)) * 4.0, np.stack([np.cos(angle), np.sin(angle)], axis=1))


@pytest.mark.parametrize("block", [2, 1 << 16])
def test_every_recording_finds_its_like(tmp_path, monkeypatch, block):
    monkeypatch.setattr(similar, "BLOCK", block)
    collection = collection_of(
        tmp_path / "c", {"v1": [0, 40], "v2": [90], "v3": [10], "v4": [100, 170], "v5": [0], "v6": [90]}
    )
    study_of = {"v1": "s1", "v2": "s1", "v3": "s2", "v4": "s2", "v5": "s3"}  # v6 may not be found
    found = nearest_studies(collection, study_of, [asked("q1", [5, 35]), asked("q2", [95])], 2)
    close = [np.cos(np.deg2rad(angle)) for angle in (5, 25)]  # q1: 35 is 5 from v1's 40; in s2, 5 is 5 from v3
    assert [one.study for one in found] == ["s1", "s2"]
    assert found[0].similarity == pytest.approx(close[0], abs=1e-6)
    pairs = found[0].pairs
    assert [(one.video_id, one.frame, one.hit.video_id) for one in pairs][1] == ("q2", 0.0, "v2")
    assert pairs[0].hit.similarity == pytest.approx(close[0], abs=1e-6)
    only = nearest_studies(collection, {"v5": "s3"}, [asked("q1", [25]), asked("q2", [65])], 5)
    assert only[0].similarity == pytest.approx((np.cos(np.deg2rad(25)) + np.cos(np.deg2rad(65))) / 2, abs=1e-6)
    assert nearest_studies(collection, {}, [asked("q1", [0])], 5) == []


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Ten patients of two or three clips, with reports that say their ejection fraction, an encoder, an index."""
    root = tmp_path_factory.mktemp("lab")
    made = make_prepared(root / "prepared", videos=24, patients=10, frames=12, size=32)
    efs = {}
    for line in made.labels.read_text().splitlines()[1:]:
        _, patient, ef, _ = line.split(",")
        efs[patient] = float(ef)
    lines = "".join(f'{patient},"{report(ef, NAMED)}"\n' for patient, ef in efs.items())
    (root / "reports.csv").write_text("study,text\n" + lines)
    fresh_videomae(Geometry(frames=4, size=32, rate=12.5), seed=0, **TINY).save(root / "encoder")
    embed(root / "encoder", made.prepared.folder, root / "index")
    return root, made.prepared, efs


def test_drafts_say_what_similar_studies_say_and_show_why(lab, tmp_path):
    root, prepared, efs = lab
    (study,) = [prepared.column("study")[3]]
    (draft,) = draft_reports(root / "index", [root / "reports.csv"], tmp_path / "out", studies=[study], count=4)
    said = json.loads((tmp_path / "out" / f"{study}.json").read_text())
    near = [one["study"] for one in said["neighbours"]]
    assert len(near) == len(set(near)) == 4
    assert study not in near
    assert said["what"].startswith("Research draft. Not a diagnosis")
    conclusion = next(one for one in said["findings"] if one["section"] == "Conclusion")
    values = [round(efs[name]) for name in near]
    assert conclusion["words"] == f"Ejection fraction {min(values)} to {max(values)} %."
    assert (conclusion["said_by"], conclusion["neighbours"]) == (4, [0, 1, 2, 3])
    assert said["withheld"]["may name somebody"] == 4
    similarities = [one["similarity"] for one in said["neighbours"]]
    assert similarities == sorted(similarities, reverse=True)
    for one in said["neighbours"]:
        assert len(one["clips"]) == draft.recordings
        assert one["similarity"] == pytest.approx(np.mean([clip["similarity"] for clip in one["clips"]]), abs=1e-3)
        assert {prepared.column("study")[prepared.index_of(clip["like_video_id"])] for clip in one["clips"]} == {
            one["study"]
        }


def test_the_page_is_marked_as_a_draft_and_names_nobody(lab, tmp_path):
    root, prepared, _ = lab
    study = prepared.column("study")[0]
    draft_reports(root / "index", [root / "reports.csv"], tmp_path / "out", studies=[study], count=3)
    page = (tmp_path / "out" / f"{study}.html").read_text()
    assert "Research draft. Not a diagnosis, not a medical report, not for the care of any patient." in page
    assert "research draft</span></h1>" in page
    assert page.count('<img src="data:image/png;base64,') == 3 * prepared.column("study").count(study)
    assert "Conclusion" in page
    for written in (page, (tmp_path / "out" / f"{study}.json").read_text()):
        assert not any(word in written for word in ("Grieg", "12345678", "12.03.2021"))
    assert "http" not in page.replace("http-equiv", "")


def test_a_study_of_another_folder_is_embedded_by_the_same_model(lab, tmp_path):
    root, prepared, _ = lab
    other = make_prepared(tmp_path / "other", videos=4, patients=2, frames=12, size=32, seed=9).prepared
    drafts = draft_reports(root / "index", [root / "reports.csv"], tmp_path / "out", data=other.folder, count=3)
    assert {one.study for one in drafts} == set(other.column("study"))
    assert summary(drafts)["studies"] == 2
    # The same folder, embedded by hand: the same vectors, whether they are taken from the collection or from the model.
    embed(root / "encoder", other.folder, tmp_path / "again")
    collection, reference = Collection.open(root / "index"), Collection.open(tmp_path / "again")
    study_of = {prepared.video_id(row): prepared.column("study")[row] for row in range(len(prepared))}
    rows = [row for row, study in enumerate(other.column("study")) if study == drafts[0].study]
    by_hand = [Asked(other.video_id(row), *reference.stretches(other.video_id(row))) for row in rows]
    near = nearest_studies(collection, study_of, by_hand, 3)
    assert [one.study for one in near] == [one.study for one in drafts[0].neighbours]
    assert near[0].similarity == pytest.approx(drafts[0].neighbours[0].similarity, abs=1e-6)
    fresh_videomae(Geometry(frames=4, size=32, rate=12.5), seed=1, **TINY).save(tmp_path / "encoder")
    with pytest.raises(ModelError, match="vectors of two models cannot be compared"):
        draft_reports(
            root / "index", [root / "reports.csv"], tmp_path / "no", data=other.folder, model=tmp_path / "encoder"
        )


def test_what_cannot_be_is_one_line(lab, tmp_path):
    root, prepared, _ = lab
    reports = [root / "reports.csv"]
    with pytest.raises(DataError, match="no study 'nobody'"):
        draft_reports(root / "index", reports, tmp_path / "out", studies=["nobody"])
    few = tmp_path / "few.csv"
    few.write_text(f"study,text\n{prepared.column('study')[0]},Thin wall.\n")
    with pytest.raises(DataError, match="fewer than 2 other patients"):
        draft_reports(root / "index", [few], tmp_path / "out")
    few.write_text(f"video_id,start,end,text\n{prepared.video_id(0)},0,0.2,Thin wall.\n")
    with pytest.raises(DataError, match="no text is about a whole study"):
        draft_reports(root / "index", [few], tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(ConfigError, match="there is something already"):
        draft_reports(root / "index", reports, tmp_path / "out")


def test_the_command_says_no_word_of_a_report(lab, tmp_path, capsys):
    root, prepared, _ = lab
    words = [
        "report",
        "--index",
        str(root / "index"),
        "--text",
        str(root / "reports.csv"),
        "--out",
        str(tmp_path / "out"),
        "--count",
        "3",
    ]
    study = prepared.column("study")[1]
    assert run_guarded(cli, [*words, "--study", study]) == 0
    out, err = capsys.readouterr()
    assert study in out
    assert "research drafts, no diagnoses" in out
    assert not any(word in out + err for word in ("ventricle", "Grieg", "Ejection"))
    assert run_guarded(cli, [*words, "--study", study, "--overwrite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["drafts"] == [f"{study}.html"]
    assert run_guarded(cli, [*words, "--overwrite", "--least", "4"]) == 2
    assert "--least 4 of 3 studies" in capsys.readouterr().err

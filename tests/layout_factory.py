"""Miniatures of public data sets, to the letter: names, delimiters, headers and the traps that the real ones hold.
Recordings are empty files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from source_factory import cine, write_avi

FILE_LIST = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"
TRIPLET_WIDTHS = {"triplet": 100, "instrument": 6, "verb": 10, "target": 15}


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Files below root by relative path; text as it is, no newline translated."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def table(header: str, *rows: str) -> str:
    return "\n".join((header, *rows)) + "\n"


def touch(root: Path, *names: str) -> Path:
    return write(root, dict.fromkeys(names, b""))


def video(path: Path, rate: int) -> None:
    """Half a second of grey at a rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(rate // 2):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def echonet_dynamic(root: Path) -> Path:
    """Three videos, one of them not on disk, and one on disk that the table lacks. FileName without ending here, with
    .avi there."""
    rows = (
        "0XAAA,55.5,40,90,112,112,50,100,TRAIN", "0XBBB,30,80.25,120,112,112,25,60,VAL", "0XCCC,61,30,80,112,112,50,99,TEST",
    )  # fmt: skip
    tracings = table(
        "FileName,X1,Y1,X2,Y2,Frame",
        "0XAAA.avi,5,0,5,10,46", "0XAAA.avi,4,2,6,2,46", "0XAAA.avi,4,8,6,8,46",  # 2 x 6: ED; the first row is the axis
        "0XAAA.avi,5,1,5,8,61", "0XAAA.avi,4.5,2,5.5,2,61", "0XAAA.avi,4.5,6,5.5,6,61",  # 1 x 4: ES
    )  # fmt: skip
    write(root, {"FileList.csv": "\ufeff" + table(FILE_LIST, *rows), "VolumeTracings.csv": tracings})
    return touch(root, "Videos/0XAAA.avi", "Videos/0XBBB.avi", "Videos/0XZZZ.avi", "Videos/._0XAAA.avi")


def filmed_echonet(root: Path, videos: int = 12) -> Path:
    """EchoNet-Dynamic with videos that can be read: a third of them tests, a sixth validates."""
    rows = []
    for number in range(videos):
        part = ("TEST", "TRAIN", "VAL", "TEST", "TRAIN", "TRAIN")[number % 6]
        rows.append(f"0X{number:04d},{30 + 3 * number},40,90,240,320,25,20,{part}")
        write_avi(root / f"Videos/0X{number:04d}.avi", cine(20, seed=number))
    return write(root, {"FileList.csv": table(FILE_LIST, *rows)})


def echonet_pediatric(root: Path) -> Path:
    """Patient CR1 in both views, in folds 0 and 3; FileName with .avi; frames that are words."""
    header = "FileName,EF,Sex,Age,Weight,Height,Split"
    a4c = table(header, "CR1-CRa-000001.avi,62.5,F,3,14.5,95,0", "CR2-CRb-000002.avi,48,M,11,,140,9")
    psax = table(header, "CR1-CRc-000007.avi,60,F,3,14.5,95,3")
    lines = table(
        "FileName,X,Y,Frame",
        *(f"CR1-CRa-000001.avi,{x},{y},12" for x, y in ((1, 1), (3, 1), (3, 4))),
        "CR1-CRa-000001.avi,0,0,No Systolic",
    )
    write(root, {"A4C/FileList.csv": a4c, "PSAX/FileList.csv": psax, "A4C/VolumeTracings.csv": lines})
    return touch(
        root, "A4C/Videos/CR1-CRa-000001.avi", "A4C/Videos/CR2-CRb-000002.avi", "PSAX/Videos/CR1-CRc-000007.avi"
    )


def echonet_lvh(root: Path) -> Path:
    header = ",HashedFileName,Calc,CalcValue,Frame,X1,X2,Y1,Y2,Frames,FPS,Width,Height,split"
    rows = (
        "0,0XL1,IVSd,1.2,10,100,110,50,60,80,40,1024,768,train",
        "1,0XL1,LVIDd,4.5,10,110,150,60,90,80,40,1024,768,train",
        "2,0XL1,IVSd,1.4,11,100,112,50,60,80,40,1024,768,train",  # measured twice
        "3,0XL2,LVPWd,0.9,3,1,2,3,4,80,30,1024,768,val",
        "4,0XL3,LVIDs,3.1,3,1,2,3,4,80,30,1024,768,test",
    )
    write(root, {"MeasurementsList.csv": table(header, *rows)})
    return touch(root, "Batch1/0XL1.avi", "Batch3/0XL2.avi")


def camus(root: Path) -> Path:
    """Two patients; the second without FrameRate."""
    info = "ED: {}\nES: {}\nNbFrame: 20\nSex: F\nAge: 56\nImageQuality: Good\nEF: {}\n"
    for number, rate in ((1, "FrameRate: 50.0\n"), (2, "")):
        for chamber in ("2CH", "4CH"):
            patient = f"patient{number:04d}"
            write(root, {f"{patient}/Info_{chamber}.cfg": info.format(1, 20, 54) + rate})
            kinds = ("ED", "ED_gt", "ES", "ES_gt", "half_sequence", "half_sequence_gt")
            touch(root, *(f"{patient}/{patient}_{chamber}_{kind}.nii.gz" for kind in kinds))
    lists = {"subgroup_training.txt": "patient0001\n", "subgroup_testing.txt": "patient0002\n"}
    return write(root, {**lists, "subgroup_validation.txt": "patient0003\n"})


def mimic_iv_echo(root: Path) -> Path:
    """Two studies of two patients; one of three files is on disk; measurements packed."""
    records = table(
        "subject_id,study_id,acquisition_datetime,dicom_filepath",
        "10002221,94106955,2180-01-01 10:00:00,files/p10/p10002221/s94106955/94106955_0001.dcm",
        "10002221,94106955,2180-01-01 10:01:00,files/p10/p10002221/s94106955/94106955_0002.dcm",
        "10009999,95555555,2170-05-05 09:00:00,files/p10/p10009999/s95555555/95555555_0001.dcm",
    )
    studies = table(
        "subject_id,study_id,study_datetime,measurement_id,measurement_datetime,note_id",
        "10002221,94106955,2180-01-01 10:00:00,777,2180-01-01 12:00:00,10002221-RR-1",
        "10009999,95555555,2170-05-05 09:00:00,,,",
    )
    measured = table(
        "subject_id,measurement_id,measurement_datetime,test_type,measurement,measurement_description,result,unit",
        "10002221,777,2180-01-01 12:00:00,TTE,lvef,LVEF,55,%", "10002221,777,2180-01-01 12:00:00,TTE,lvot_diam,,2.1,cm",
        "10002221,777,2180-01-01 12:00:00,TTE,MR_grade,,mild,", "10002221,777,2180-01-01 12:00:00,TTE,tr_grade,,,",
        "19999999,888,2180-01-01 12:00:00,TTE,lvef,LVEF,20,%",  # a study without pictures
    )  # fmt: skip
    write(root, {"echo-record-list.csv": records, "echo-study-list.csv": studies})
    write(root, {"structured-measurement.csv.gz": gzip.compress(measured.encode())})
    return touch(root, "files/p10/p10002221/s94106955/94106955_0001.dcm")


def tmed2(root: Path) -> Path:
    rows = (
        "10s1_0.png,PLAX,severe_AS,train", "10s2_3.png,A4CorA2CorOther,Not_Provided,not_used", "22s1_1.png,PSAX,no_AS,test",
    )  # fmt: skip
    header = "query_key,view_label,diagnosis_label,diagnosis_classifier_split"
    write(root, {"labels_per_image.csv": table(header, *rows)})
    return touch(root, "view_and_diagnosis_labeled_set/labeled/10s1_0.png", "view_labeled_set/labeled/10s2_3.png")


def rvenet(root: Path) -> Path:
    """RVEF as fractions, and a split column in capitals."""
    header = "FileName,PatientHash,UltrasoundSystem,FPS,RVEF,Split"
    rows = ("f1,p1,GE,50,0.52,train", "f2,p1,GE,50,0.5,train", "f3,p2,Philips,48,0.305,test")
    write(root, {"codebook.csv": table(header, *rows)})
    return touch(root, "dicom/f1.dcm", "dicom/f2.dcm", "dicom/f3.dcm")


def cholec80(root: Path, numbers: Sequence[int] = (12, 45, 79)) -> Path:
    """Frames at 25 a second: phase 0-49 Preparation, 50-99 CalotTriangleDissection; tools at frames 0, 25, 50, 75."""
    phases = [f"{n}\t{'Preparation' if n < 50 else 'CalotTriangleDissection'}" for n in range(100)]
    tools = ["0\t0\t0\t0\t0\t0\t0\t0", "25\t1\t0\t1\t0\t0\t0\t0", "50\t1\t0\t0\t0\t0\t0\t0", "75\t0\t0\t0\t0\t0\t0\t1"]
    header = "Frame\tGrasper\tBipolar\tHook\tScissors\tClipper\tIrrigator\tSpecimenBag"
    for number in numbers:
        write(root, {
            f"phase_annotations/video{number:02d}-phase.txt": table("Frame\tPhase", *phases),
            f"tool_annotations/video{number:02d}-tool.txt": table(header, *tools),
        })  # fmt: skip
        touch(root, f"videos/video{number:02d}.mp4")
    return root


def binaries(width: int, on: Mapping[int, Sequence[int]], frames: int) -> str:
    """Rows of CholecT45: the frame, then zeros and ones."""
    return "".join(
        ",".join([str(frame), *("1" if index in on.get(frame, ()) else "0" for index in range(width))]) + "\n"
        for frame in range(frames)
    )


def cholect45(root: Path, numbers: Sequence[int] = (12, 79)) -> Path:
    """Triplets 17 (frames 1-3) and 60 (frames 2-3) of five frames."""
    on = {
        "triplet": {1: [17], 2: [17, 60], 3: [17, 60]}, "instrument": {1: [0], 2: [0, 2], 3: [0, 2]},
        "verb": {1: [1], 2: [1, 2], 3: [1, 2]}, "target": {1: [0], 2: [0], 3: [0]},
    }  # fmt: skip
    for number in numbers:
        for label, width in TRIPLET_WIDTHS.items():
            write(root, {f"{label}/VID{number:02d}.txt": binaries(width, on[label], 5)})
        touch(root, *(f"data/VID{number:02d}/{frame:06d}.png" for frame in range(5)))
    return root


def vector(triplet: int, tool: int, verb: int, target: int, phase: int) -> list[float]:
    return [triplet, tool, 0.9, 0.1, 0.1, 0.2, 0.2, verb, target, -1, -1, -1, -1, -1, phase]


def cholect50(root: Path, numbers: Sequence[int] = (12, 111)) -> Path:
    """Frames 0, 2, 10 in the order of text; a triplet twice in one frame; nulls."""
    retract, nothing = vector(17, 0, 1, 0, 1), vector(-1, -1, -1, -1, 0)
    annotations = {"0": [nothing], "10": [nothing], "2": [retract, retract], "1": [retract]}
    names = (
        "preparation", "carlot-triangle-dissection", "clipping-and-cutting", "gallbladder-dissection", "gallbladder-packaging",
        "cleaning-and-coagulation", "gallbladder-extraction",
    )  # fmt: skip
    content = {
        "fps": 1,
        "annotations": annotations,
        "categories": {"phase": {str(index): name for index, name in enumerate(names)}},
    }
    for number in numbers:
        write(root, {f"labels/VID{number:02d}.json": json.dumps(content)})
        touch(root, *(f"videos/VID{number:02d}/{frame:06d}.png" for frame in range(11)))
    return root


def autolaparo(root: Path, first: int = 1) -> Path:
    """Frames from 1; video 01 has no first phase, 02 no last one."""
    for number, phases in ((1, (1, 1, 6)), (2, (0, 0, 2)), (15, (3,))):
        rows = [f"{frame}\t{phase + first}" for frame, phase in enumerate(phases, 1)]
        write(root, {f"labels/label_{number:02d}.txt": table("Frame\tPhase", *rows)})
        touch(root, f"videos/{number:02d}.mp4")
    return root


def heichole(root: Path) -> Path:
    """Video 1 at 25, video 16 at 50 frames a second; the same frame numbers."""
    for number, rate in ((1, 25), (16, 50)):
        stem = f"Hei-Chole{number}_Annotation"
        on = "1," + "0," * 19 + "0"
        shaft = "0," * 20 + "1"
        write(root, {
            f"Annotations/Phase/{stem}_Phase.csv": "0,0\n1,0\n2,1\n",
            f"Annotations/Instrument/{stem}_Instrument.csv": f"0,{on}\n1,{shaft}\n2,{shaft}\n",
            f"Annotations/Instrument/{stem}_Instrument_Detailed.csv": "0,1\n",
            f"Annotations/Action/{stem}_Action.csv": "0,0,1,0,0\n1,1,1,0,0\n2,0,0,0,0\n",
        })  # fmt: skip
        video(root / f"Videos/Hei-Chole{number}.mp4", rate)
    return write(root, {"Annotations/Skill/Hei-Chole1_Annotation_Skill.csv": "5,5,4,3,4\n"})


def jigsaws(root: Path) -> Path:
    """Two surgeons; double tabs in the meta file; a trial without skill; a second camera that is not there."""
    write(root, {
        "Suturing/meta_file_Suturing.txt": "Suturing_B001\t\tN\t13\t\t2\t2\t2\t2\t3\t2\n",
        "Suturing/transcriptions/Suturing_B001.txt": "61 120 G1 \n121 150 G5 \n",
        "Suturing/transcriptions/Suturing_H002.txt": "1 30 G11 \n",
    })  # fmt: skip
    return touch(
        root, *(f"Suturing/video/Suturing_{name}.avi" for name in ("B001_capture1", "B001_capture2", "H002_capture1"))
    )


EPIC = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)


def epic_kitchens(root: Path) -> Path:
    """P01 trains and validates, P18 only validates. Frames count 60 a second where the video has 29.97."""
    train = 'P01_01_0,P01,P01_01,00:00:01.0,00:01:02.50,00:01:04.00,3750,3840,"put cup, down",put-down,1,cup,2,"[\'cup\']",[2]'
    val = "P01_11_0,P01,P01_11,,00:00:00.00,00:00:01.89,1,113,take tap,take,0,tap,0,['tap'],[0]"
    unseen = "P18_01_0,P18,P18_01,00:00:09.0,01:00:00.00,01:00:02.00,1,113,wash spoon,wash,2,spoon,1,['spoon'],[1]"
    classes = "id,key,instances,category"
    nouns = ("0,tap,[],a", "1,spoon,[],b", "2,cup,[],c")
    rates = ("P01_01,100,29.97002997002997,1920x1080", "P01_11,9,50.0,1920x1080")
    tables = {
        "train": table(EPIC, train),
        "validation": table(EPIC, val, unseen),
        "verb_classes": table(classes, "0,take,\"['take', 'get']\",retrieve", "1,put,[],leave", "2,wash,[],clean"),
        "noun_classes": table(classes, *nouns),
        "noun_classes_v2": table(classes, *nouns, "3,hand:left,[],d"),
        "video_info": table("video_id,duration,fps,resolution", *rates),
        "unseen_participant_ids_validation": table("participant_id", "P18"),
    }
    write(root, {f"epic-kitchens-100-annotations/EPIC_100_{name}.csv": text for name, text in tables.items()})
    return touch(root, "P01/videos/P01_01.MP4", "P01/videos/P01_11.MP4", "P18/videos/P18_01.MP4")


def egoclip(root: Path) -> Path:
    """Tabs in a .csv; a line with a cell too many; a clip that starts before 0; one that ends before it starts; a
    video not on disk."""
    header = (
        "clip_idx", "video_uid", "video_dur", "narration_source", "narration_ind", "narration_time", "clip_start",
        "clip_end", "clip_text", "tag_verb", "tag_noun",
    )  # fmt: skip
    rows = (
        ("0", "u1", "128.03", "narration_pass_1", "0", "3.3445", "2.97", "3.72", "#C C picks a cup, slowly", "[93]", "[192, 115]"),
        ("1", "u1", "128.03", "narration_pass_1", "1", "0.2", "-0.3", "0.6", "#C C looks around", "[]", "[115]"),
        ("2", "u1", "128.03", "narration_pass_1", "2", "9.0", "9.5", "9.0", "#C C stands", "[1]", "[2]"),
        ("3", "u1", "128.03", "narration_pass_1", "3", "9.0", "9.5", "9.9", "#C\tC stands", "[1]", "[2]"),
        ("4", "u2", "60.0", "narration_pass_2", "0", "1.0", "0.5", "1.5", "#C C cuts", "[5]", "[6]"),
    )  # fmt: skip
    write(root, {"egoclip.csv": table("\t".join(header), *("\t".join(row) for row in rows))})
    return touch(root, "v2/full_scale/u1.mp4")


PLAYERS = tuple(f"7656119800000{number:04d}" for number in range(1, 6))


def x_ego(root: Path) -> Path:
    """One match of two rounds on either side of the split; in round 2 three players live; player 3 has no time offset
    there."""
    mates = "teammate_0_id,teammate_1_id,teammate_2_id,teammate_3_id,teammate_4_id"
    header = (
        "idx,partition,pov_team_side,seg_duration_sec,start_tick,end_tick,start_seconds,end_seconds,match_id,round_num,"
        f"num_alive_teammates,{mates}"
    )
    lines = (
        f"0,train,ct,5.0,640,960,10.0,15.0,m1,1,2,{PLAYERS[0]},{PLAYERS[1]},,,",
        f"1,test,t,5.0,0,320,0.0,5.0,m1,2,3,{','.join(PLAYERS[:3])},,",
    )
    task = table(
        "idx,partition,pov_steamid,pov_side,seg_duration_sec,start_tick,end_tick,prediction_tick,match_id,round_num,label_0,label_1,label_2",
        f"0,train,{PLAYERS[0]},ct,5.0,640,960,1280,m1,1,0,1,1",
    )  # fmt: skip
    view = {"offset_sec": 0.25, "video_fps": 30.0}
    offsets = {"m1": {p: {"round_1": view, "round_2": {"offset_sec": -0.5}} for p in PLAYERS[:2]}}
    offsets["m1"][PLAYERS[2]] = {"round_1": view}
    write(root, {
        "dust2/labels/contrastive.csv": table(header, *lines), "dust2/labels/all_tasks/enemy_location_5s.csv": task,
        "dust2/time_offset.json": json.dumps(offsets),
    })  # fmt: skip
    views = [f"{PLAYERS[0]}/round_01", f"{PLAYERS[1]}/round_01", f"{PLAYERS[0]}/round_02", f"{PLAYERS[2]}/round_02"]
    return touch(root, *(f"dust2/video_306x306_4fps/m1/{view}.mp4" for view in views))


def annotated(root: Path) -> Path:
    """Two videos, one of them not on disk; a line backwards, one of nobody, one without a value; a label of no task; no split for the second."""
    about = "title: Ours\ndomain: surgical\ngrouped_by: patients\ntasks:\n  phase: {kind: phases, column: phase, classes: [first, second]}\n"
    spans = (
        "videos/a.mp4,0,2.5,phase,first", "videos/a.mp4,2.5,4,phase,second", "videos/a.mp4,1,3,bleeding,much", "videos/a.mp4,3,1,phase,first",
        "videos/z.mp4,0,1,phase,first", "videos/a.mp4,0,1,bleeding,", "videos/b.mp4,0,1,phase,second",
    )  # fmt: skip
    texts = (
        'videos/a.mp4,0.5,2,"the hook, here",asr_a,clip',
        "videos/a.mp4,0,4,all of it,surgeon,abstract",
        "videos/a.mp4,1,2,,asr_a,clip",
    )
    write(root, {
        "dataset.yaml": about, "recordings.csv": table("recording,group,ours", "videos/a.mp4,7,train", "videos/b.mp4,,"),
        "spans.csv": table("recording,start,end,label,value", *spans), "texts.csv": table("recording,start,end,text,source,level", *texts),
    })  # fmt: skip
    return touch(root, "videos/a.mp4", "videos/c.mp4")


FACTORIES: dict[str, Callable[[Path], Path]] = {
    "echonet-dynamic": echonet_dynamic, "echonet-pediatric": echonet_pediatric, "echonet-lvh": echonet_lvh, "camus": camus,
    "mimic-iv-echo": mimic_iv_echo, "tmed2": tmed2, "rvenet": rvenet, "cholec80": cholec80, "cholect45": cholect45,
    "cholect50": cholect50, "autolaparo": autolaparo, "heichole": heichole, "jigsaws": jigsaws,
    "epic-kitchens-100": epic_kitchens, "egoclip": egoclip, "x-ego": x_ego, "annotated": annotated,
}  # fmt: skip

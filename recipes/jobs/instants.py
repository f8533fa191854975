"""`vfm evaluate knn|linear` of a task of moments: clips of moments, frozen features, and what holds there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from domains.base import TaskSettings
from domains.errors import ConfigError, DataError
from domains.store.annotated import read_split, task_of
from domains.store.moments import MomentLabels, read_moments
from domains.store.prepared import Prepared
from domains.store.splits import patient_folds
from recipes.encoders import open_encoder
from recipes.evaluate.baselines import BASELINES, check_baselines
from recipes.evaluate.compare import PROTOCOLS, TEACHES, protocol_of, teaching
from recipes.evaluate.features import Extractor, ReadProgress, embedding
from recipes.evaluate.instants import (
    SEVERAL,
    average_precisions,
    f1_scores,
    mean_known,
    metrics_of_actions,
    pairs_of_classes,
    probe_several,
)
from recipes.evaluate.metrics import Array, Metric, balanced_accuracy
from recipes.evaluate.pixels import pixel_features
from recipes.evaluate.questions import Asking, Unit, check_asking, described, read_units, units_of
from recipes.evaluate.scored import Line, Scored, Scorer, lines_of, write_scored
from recipes.evaluate.statistics import DRAWS, LEVEL
from recipes.jobs.evaluate import clip_seen, compared_with
from recipes.jobs.seen import meetings, who
from recipes.jobs.start import start_of


def evaluate_moments(
    protocol: str,
    encoder: str | Path,
    data: Prepared | str | Path,
    labels: str | Path | None,
    task: str,
    asking: Asking,
    *,
    baselines: tuple[str, ...] = BASELINES,
    folds: int = 5,
    split: str = "",
    seed: int = 0,
    draws: int = DRAWS,
    key: bytes | None = None,
    domain: str | None = None,
    out: Path | None = None,
    online: bool = False,
    progress: ReadProgress | None = None,
) -> Scored:
    """A probe of frozen features of single clips; people of the tested part teach nothing.

    phases: a question an action (a span), answered by one class; presence: a question a clip, every class there or not. Other arguments: see
    `recipes.jobs.evaluate.evaluate`. Raises ConfigError, DataError, ModelError.
    """
    protocol_of(protocol)
    check_baselines(baselines)
    prepared = data if isinstance(data, Prepared) else Prepared.open(data)
    settings = task_of(prepared, domain or prepared.domain, task)
    check_asking(asking, settings, task)
    found = read_moments(prepared, settings, labels, key)
    start, opened = start_of(encoder), open_encoder(str(encoder), online=online)
    clip = clip_seen(opened, prepared, domain)
    fold_of = folds_of(prepared, found.rows, folds, seed, split)
    units, passed = units_of(prepared, found, clip, asking, fold_of)
    encoders, titles, notes = compared_with(str(encoder), opened, start, baselines, online)
    with ExitStack() as stack:
        extractors: dict[str, Extractor] = {"pixels": pixel_features} if "pixels" in baselines else {}
        extractors |= {name: stack.enter_context(embedding(one)) for name, one in encoders.items()}
        features, kept, failed = read_units(prepared, units, clip, extractors, progress)
    units = [units[place] for place in kept]
    asked = Asked.of(prepared, found, units, fold_of, asking)
    predictions = {name: asked.predict(protocol, values) for name, values in features.items()}
    names = list(features)
    reference = next((name for name in ("generic", "random", "pixels") if name in names[:-1]), "prior")
    lines = asked.lines(predictions, titles, reference, draws=draws, seed=seed)
    tested = asked.tested_patients
    people = who(prepared)
    scored = Scored(
        protocol=protocol,
        task=task,
        metrics=asked.metrics,
        lines=lines,
        asked=(names[-1],),
        how=(*described(asking, settings, clip), *said_of(split, asked, folds)),
        size=f"{len(asked.units)} moments of {len({unit.row for unit in asked.units})} recordings, {len(set(tested))} {people}, {LEVEL:.0%} "
        f"intervals over {people}",
        settings={
            "kind": settings.kind, "classes": list(found.classes), "moments": len(asked.units), "patients": len(set(tested)), "clips": asking.clips,
            "every": asking.every, "ahead": asking.ahead, "opposites": asking.opposites, "folds": 1 if split else folds, "split": split, "seed": seed,
            "of_each_class": asked.of_each(predictions[names[-1]]), "bootstrap": {"draws": draws, "over": "patients", "level": LEVEL},
        },
        predictions=asked.written(predictions, prepared),
        excluded=failed,
        notes=(*notes, *passed, *meetings(encoder, prepared, tested)),
    )  # fmt: skip
    if out is not None:
        write_scored(scored, out)
    return scored


def folds_of(prepared: Prepared, rows: Sequence[int], folds: int, seed: int, split: str) -> dict[int, int]:
    """The fold of each labelled recording; on an official split, the test part is one fold and the rest teaches. Raises ConfigError, DataError."""
    if folds < 2:
        raise ConfigError(f"{folds} folds leave nothing to learn from", do="Use 2 or more")
    if not split:
        return dict(
            zip(rows, patient_folds([prepared.patients[row] for row in rows], folds, seed).tolist(), strict=True)
        )
    parts = read_split(prepared, split)
    found = {row: 0 if parts[row] == "test" else TEACHES for row in rows if parts[row]}
    if len(set(found.values())) < 2:
        what = f"the split '{split}' has labelled recordings on one side only"
        raise DataError(what, where=prepared.place, do="Leave --split out")
    return found


@dataclass(frozen=True)
class Asked:
    """Questions that could be read. every: all of them; units: those that are tested, in their order. fold (n,) of all; patients of all."""

    every: list[Unit]
    units: list[Unit]
    fold: NDArray[np.int64]
    patients: list[str]
    classes: tuple[str, ...]
    settings: TaskSettings
    asking: Asking
    truth: Array
    counted: ClassVar[str] = "moments"

    @classmethod
    def of(
        cls, prepared: Prepared, labels: MomentLabels, units: list[Unit], fold_of: Mapping[int, int], asking: Asking
    ) -> Asked:
        """Raises DataError where nothing can be learned or told."""
        fold = np.array([fold_of[unit.row] for unit in units], np.int64)
        truth = np.stack([unit.truth for unit in units])
        settings = labels.task
        tested = [unit for unit, one in zip(units, fold, strict=True) if one != TEACHES]
        one = cls(
            units,
            tested,
            fold,
            [prepared.patients[unit.row] for unit in units],
            labels.classes,
            settings,
            asking,
            truth,
        )
        if settings.kind == "phases" and len(np.unique(truth)) < 2:
            raise DataError(
                "all actions are of one class", where=f"task {settings.column}", do="Label at least two classes"
            )
        if asking.opposites and not one.pairs:
            raise DataError("no two opposites both occur", where=prepared.place)
        return one

    @property
    def tested(self) -> NDArray[np.bool_]:
        return self.fold != TEACHES

    @property
    def tested_patients(self) -> list[str]:
        """Of `units`."""
        return [patient for patient, asked in zip(self.patients, self.tested, strict=True) if asked]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Opposites that occur."""
        return pairs_of_classes(self.truth, self.classes, self.settings.opposites)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The figures of the table."""
        if self.asking.opposites:
            names = [f"{self.classes[one]} / {self.classes[other]}" for one, other in self.pairs]
            of_pairs = [
                Metric(f"pair_{n}", name, balanced_accuracy, True, percent=True) for n, name in enumerate(names)
            ]
            return (Metric("opposites", "opposites", balanced_accuracy, True, percent=True), *of_pairs)
        if self.settings.kind == "presence":
            return SEVERAL
        return metrics_of_actions(len(self.classes), ahead=self.asking.ahead > 0)

    @property
    def headline(self) -> Metric:
        """The first of them."""
        return self.metrics[0]

    def predict(self, protocol: str, features: Array, *, fraction: float = 1.0, seed: int = 0) -> Array:
        """(n, C), or of opposites (n, pairs, 2), out of fold; not a number where a question only teaches, or is of no pair.

        fraction, seed: of the teaching patients whose labels are used, see `recipes.evaluate.compare.teaching`.
        """
        shape = (len(self.every), len(self.pairs), 2) if self.asking.opposites else (len(self.every), len(self.classes))
        found = np.full(shape, np.nan)
        for fold in np.unique(self.fold[self.tested]):
            held = self.fold == fold
            teaches = teaching(self.patients, held, fraction, seed)
            if not self.asking.opposites:
                found[held] = self._probe(protocol, features, teaches, held, self.truth, len(self.classes))
                continue
            for number, (one, other) in enumerate(self.pairs):
                of_pair = np.isin(self.truth, (one, other))
                taught, asked = teaches & of_pair, held & of_pair
                if asked.any() and len(np.unique(self.truth[taught])) == 2:
                    found[asked, number] = self._probe(
                        protocol, features, taught, asked, (self.truth == other).astype(float), 2
                    )
        return found

    def _probe(
        self,
        protocol: str,
        features: Array,
        taught: NDArray[np.bool_],
        asked: NDArray[np.bool_],
        truth: Array,
        classes: int,
    ) -> Array:
        patients = [patient for patient, teaches in zip(self.patients, taught, strict=True) if teaches]
        if self.settings.kind == "presence":
            return probe_several(protocol, features[taught], truth[taught], patients, features[asked])
        return PROTOCOLS[protocol](features[taught], truth[taught], patients, features[asked], classes)

    def prior(self) -> Array:
        """What the shares of the classes in the training part say of every question; as `predict`."""
        if self.asking.opposites:
            return np.full((len(self.every), len(self.pairs), 2), 0.5)
        several = self.settings.kind == "presence"
        truth = self.truth if several else np.eye(len(self.classes))[self.truth.astype(int)]
        found = np.full(truth.shape, np.nan)
        for fold in np.unique(self.fold[self.tested]):
            held = self.fold == fold
            found[held] = truth[~held].mean(axis=0)
        return found

    def scorer(self, prediction: Array) -> Scorer:
        """Of predictions for all questions."""
        truth, said = self.truth[self.tested], prediction[self.tested]

        def score(metric: Metric, weights: Array) -> Array:
            if not self.asking.opposites:
                return metric.of(truth, said, weights)
            if metric.name == "opposites":
                each = [self._of_pair(truth, said, number, weights) for number in range(len(self.pairs))]
                return mean_known(np.stack(each, axis=-1))
            return self._of_pair(truth, said, int(metric.name.removeprefix("pair_")), weights)

        return score

    def _of_pair(self, truth: Array, said: Array, number: int, weights: Array) -> Array:
        one, other = self.pairs[number]
        kept = np.isin(truth, (one, other)) & np.isfinite(said[:, number, 0])
        if not kept.any():
            return np.full(len(weights), np.nan)
        return balanced_accuracy((truth[kept] == other).astype(float), said[kept, number], weights[:, kept])

    def lines(
        self, predictions: Mapping[str, Array], titles: Mapping[str, str], reference: str, *, draws: int, seed: int
    ) -> tuple[Line, ...]:
        """The rows of the table, what is known without looking first."""
        scorers = {"prior": ("without looking (training shares)", self.scorer(self.prior()))}
        scorers |= {name: (titles[name], self.scorer(one)) for name, one in predictions.items()}
        return lines_of(scorers, self.metrics, self.tested_patients, reference, draws=draws, seed=seed)

    def of_each(self, prediction: Array) -> dict[str, dict[str, float | None]]:
        """Figures of every class (or pair) of one row, without intervals."""
        ones = np.ones((1, int(self.tested.sum())))
        truth, said = self.truth[self.tested], prediction[self.tested]

        def plain(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        if self.asking.opposites:
            names = [" / ".join((self.classes[one], self.classes[other])) for one, other in self.pairs]
            return {name: {"accuracy": plain(self._of_pair(truth, said, n, ones)[0])} for n, name in enumerate(names)}
        if self.settings.kind == "presence":
            ap, f1 = average_precisions(truth, said, ones)[0], f1_scores(truth, said, ones)[0]
            return {
                name: {"ap": plain(ap[n]), "f1": plain(f1[n]), "share": plain(truth[:, n].mean())}
                for n, name in enumerate(self.classes)
            }
        right = said.argmax(axis=1) == truth
        return {
            name: {"recall": plain(right[truth == n].mean()), "moments": float((truth == n).sum())}
            for n, name in enumerate(self.classes) if (truth == n).any()
        }  # fmt: skip

    def written(self, predictions: Mapping[str, Array], prepared: Prepared) -> tuple[list[str], list[list[str]]]:
        """Head and lines of predictions.csv: of each row and question what is true, what is said, and how likely each class is."""
        several = self.settings.kind == "presence"
        names = [] if self.asking.opposites else [f"p_{name}" for name in self.classes]
        lines = []
        for row, prediction in predictions.items():
            for unit, truth, said in zip(self.units, self.truth[self.tested], prediction[self.tested], strict=True):
                if self.asking.opposites:
                    true, called, shares = self.classes[int(truth)], self._called(int(truth), said), []
                elif several:
                    true = "+".join(name for name, there in zip(self.classes, truth, strict=True) if there)
                    called, shares = (
                        "+".join(name for name, p in zip(self.classes, said, strict=True) if p >= 0.5),
                        said.tolist(),
                    )
                else:
                    true, called, shares = self.classes[int(truth)], self.classes[int(said.argmax())], said.tolist()
                who = [prepared.video_id(unit.row), prepared.patients[unit.row], f"{unit.second:.3f}"]
                lines.append([row, *who, true, called, *(f"{share:.4f}" for share in shares)])
        return ["encoder", "video_id", "patient", "second", "truth", "prediction", *names], lines

    def _called(self, truth: int, said: Array) -> str:
        """The opposite that is called; "" where the action is of no pair."""
        for number, pair in enumerate(self.pairs):
            if truth in pair and np.isfinite(said[number, 0]):
                return self.classes[pair[int(said[number].argmax())]]
        return ""


def said_of(split: str, asked: Asked, folds: int) -> tuple[str, ...]:
    """Who teaches, and who is tested."""
    if not split:
        return (f"{folds} folds of groups that share nobody",)
    taught = len(asked.every) - len(asked.units)
    return (f"official split '{split}': {taught} moments teach (train and val), {len(asked.units)} are tested",)

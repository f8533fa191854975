"""What a linear probe of classes costs, against scikit-learn's own search for the strength with all threads. Prints seconds and the ratio.

python benchmarks/probe.py                          # 256 videos of 64 patients, 384 features, 4 classes
python benchmarks/probe.py --videos 512 --features 1536
python benchmarks/probe.py --at-once 2              # two processes beside each other, as `vfm bench --workers 2` asks

Both try the same strengths in folds that share no patient, and fit once more with the best: `recipes.evaluate.linear`, and LogisticRegressionCV.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit

from recipes.evaluate.linear import INVERSE_STRENGTHS, inner_folds, linear, standardised

CLASSES, LATENT, TIMES = 4, 24, 3


def drawn(videos: int, features: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features (n, D) of few directions and noise, as those of an encoder are; classes (n,); patients, four videos each."""
    numbers = np.random.default_rng(0)
    hidden = numbers.normal(size=(videos, LATENT)) * np.logspace(0, -1.5, LATENT)
    mixed = hidden @ numbers.normal(size=(LATENT, features)) + 0.02 * numbers.normal(size=(videos, features))
    classes = (hidden[:, :CLASSES] / hidden[:, :CLASSES].std(axis=0)).argmax(axis=1)
    return mixed, classes.astype(np.float64), [f"p{n // 4}" for n in range(videos)]


def theirs(train: np.ndarray, truth: np.ndarray, patients: list[str], query: np.ndarray) -> np.ndarray:
    """scikit-learn's, of the same features, folds and strengths."""
    train, query = standardised(train, query)
    folds = PredefinedSplit(inner_folds(patients))
    model = LogisticRegressionCV(Cs=INVERSE_STRENGTHS, cv=folds, scoring="neg_log_loss", max_iter=1000, tol=1e-4)
    with warnings.catch_warnings(action="ignore"):  # of what will be called otherwise
        found: np.ndarray = model.fit(train, truth.astype(int)).predict_proba(query)
    return found


def once(name: str, videos: int, features: int) -> tuple[float, np.ndarray]:
    """Seconds, fastest of several, and what is said of what taught."""
    mixed, truth, patients = drawn(videos, features)
    spent = []
    for _ in range(TIMES):
        began = time.perf_counter()
        if name == "vfm":
            said = linear(mixed, truth, patients, mixed, CLASSES)
        else:
            said = theirs(mixed, truth, patients, mixed)
        spent.append(time.perf_counter() - began)
    return min(spent), said


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=256)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--at-once", type=int, default=1)
    asked = parser.parse_args()
    spent: dict[str, float] = {}
    said: dict[str, np.ndarray] = {}
    with multiprocessing.get_context("spawn").Pool(asked.at_once) as pool:
        for name in ("vfm", "scikit-learn"):
            found = pool.starmap(once, [(name, asked.videos, asked.features)] * asked.at_once, chunksize=1)
            spent[name], said[name] = max(seconds for seconds, _ in found), found[0][1]
            print(f"{name:<14}{spent[name]:8.2f} s")
    same = np.mean(said["vfm"].argmax(axis=1) == said["scikit-learn"].argmax(axis=1))
    faster = spent["scikit-learn"] / spent["vfm"]
    print(
        f"{faster:.1f} times as fast, {asked.at_once} at once on {os.cpu_count()} cores; {same:.1%} of the answers are the same"
    )


if __name__ == "__main__":
    main()

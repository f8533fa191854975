"""Many dimensions on a page: a map in which near videos have near features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FEWEST = 15  # below this a neighbourhood method has no neighbourhoods


def flatten(features: Array, seed: int = 0) -> tuple[Array, str]:
    """(n, D) -> (n, 2) and the name of the method: t-SNE, or the two main axes of few videos.

    Features are standardised first, as for the linear probe. Same features, same map.
    """
    deviation = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(deviation > 1e-8, deviation, np.inf)
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    axes = left * singular
    if len(features) < FEWEST:
        flat = np.zeros((len(features), 2))
        flat[:, : min(2, axes.shape[1])] = axes[:, :2]
        return flat, "PCA"
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=750)
    return model.fit_transform(axes[:, :50]).astype(np.float64), "t-SNE"

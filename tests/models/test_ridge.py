"""Regressions of repairs against least squares, with prior, ridge and metric as rows of data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prunetune.models.repair.ridge import RidgeRegression


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("trust", [0.0, 0.3])
@pytest.mark.parametrize("columns", [5, 130])
def test_weights_are_those_of_least_squares(
    dtype: torch.dtype, intercept: bool, trust: float, columns: int
) -> None:
    random = np.random.default_rng(0)
    rows, outputs = 600, 3
    vectors = torch.tensor(random.normal(0.7, 1.0, (rows, columns)), dtype=dtype)
    prior = random.normal(size=(outputs, columns))
    truth = prior + 0.3 * random.normal(size=prior.shape)
    x = vectors.double().numpy()
    wanted = x @ truth.T + 2.0 + 0.1 * random.normal(size=(rows, outputs))
    seen = random.normal(size=(rows, columns))
    metric = trust * seen.T @ seen / rows if trust else None

    regression = RidgeRegression(
        vectors,
        torch.tensor(prior, dtype=torch.float32),
        intercept,
        None if metric is None else torch.tensor(metric, dtype=torch.float32),
    )
    weight, offset = regression.fit(torch.tensor(wanted, dtype=torch.float32))

    mean_x, mean_y = (x.mean(axis=0), wanted.mean(axis=0)) if intercept else (0.0, 0.0)
    z, y = x - mean_x, wanted - mean_y
    amount = 1e-3 * (z * z).mean() * rows
    believed = np.vstack([np.sqrt(amount) * np.eye(columns), np.sqrt(trust) * seen])
    data = np.vstack([z, believed])
    solved = np.linalg.lstsq(data, np.vstack([y, believed @ prior.T]), rcond=None)[0].T
    # Wanted values are rounded to bfloat16, which keeps eight bits; a mean over rows keeps more.
    tolerance = 1e-4 if dtype == torch.float32 else 5e-3
    assert np.allclose(weight.numpy(), solved, atol=tolerance)
    expected = mean_y - solved @ mean_x if intercept else np.zeros(outputs)
    assert np.allclose(offset.numpy(), expected, atol=tolerance * columns)
    computed = x @ weight.double().numpy().T + offset.double().numpy()
    spread = float(np.abs(computed).max())
    predicted = regression.predict(weight, offset).double().numpy()
    assert np.abs(predicted - computed).max() <= tolerance * 2 * spread


def test_products_of_everybody_else_stay_what_they_were() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    vectors = torch.randn(50, 4).bfloat16()
    RidgeRegression(vectors, torch.zeros(2, 4), True, None).fit(torch.randn(50, 2))
    assert torch.backends.mkldnn.matmul.fp32_precision == before  # type: ignore[attr-defined]

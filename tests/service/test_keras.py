"""The Keras callback: a trial that was paused, and went on from its state, is as one that was trained in one go."""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

import httpx
import numpy as np
import pytest
from batchopt.service.client import Done, ask, put_study
from serving import QUESTION


@pytest.mark.slow
def test_a_paused_fit_goes_on_as_if_it_had_not_been(service: httpx.Client) -> None:
    import keras
    from batchopt.service.keras import BatchoptCallback

    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 4)).astype("float32")
    y = x.sum(axis=1)

    def fit(batch_size: int, rate: float, epochs: int, first: int = 0, callbacks: Any = ()) -> list[float]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(rate), "mse")
        history = model.fit(
            *(x, y), batch_size, epochs, initial_epoch=first, shuffle=False, verbose=0,
            validation_data=(x, y), callbacks=list(callbacks),
        )  # fmt: skip
        return list(history.history["val_loss"])

    url, name = str(service.base_url), f"keras-{secrets.token_hex(4)}"
    put_study(url, name, QUESTION | {"metric": "val_loss", "examples": 256, "epochs": 8, "prune": True, "trials": 4})
    resumed = set()
    with contextlib.suppress(Done):
        while True:
            with ask(url, name, can_pause=True) as trial:
                resumed |= {trial.number} if trial.from_epoch else set()
                first, rate = trial.from_epoch, trial.learning_rate
                fit(trial.batch_size, rate, trial.until_epoch, first, [BatchoptCallback(trial)])
    assert resumed
    for told in service.get(f"/v1/studies/{name}/trials").json():
        values = [epoch["value"] for epoch in told["epochs"]]
        plain = fit(told["batch_size"], told["learning_rate"], len(values))
        assert values == pytest.approx(plain, rel=1e-5), told["trial"]

    put_study(url, f"{name}-unsaid", QUESTION)
    with ask(url, f"{name}-unsaid") as trial, pytest.raises(ValueError, match="is not in the logs: loss, val_loss"):
        fit(16, 0.01, 1, callbacks=[BatchoptCallback(trial)])

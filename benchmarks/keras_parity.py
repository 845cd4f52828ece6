"""Hold an engine against training histories recorded from Keras.

``python -m benchmarks.keras_parity DIR [--engine NAME]`` reads every ``.npz`` file of DIR (its keys are described in
``tests/golden/README.md``), trains the same network from the same start weights on the same rows in the same order, and
prints the largest differences. Exit code 0: all within tolerance; 1: some are not; 2: the folder cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from butter_etl.engines.contract import ENGINES, HISTORIES, Network, Optimization, StackData, load_engine
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from butter_etl.engines.contract import Engine, Loss, Trained, Weights

#: |a - b| <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE |b|, with Keras' value b.
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-6
WEIGHT_TOLERANCE = 1e-4

_LOSSES: dict[str, Loss] = {
    "classification": "categorical_crossentropy",
    "binary": "binary_crossentropy",
    "regression": "mean_squared_error",
}
_OPTIMIZERS: dict[str, Literal["adam", "RMSprop", "SGD"]] = {"adam": "adam", "sgd": "SGD", "rmsprop": "RMSprop"}


@dataclass(frozen=True)
class Case:
    """One recorded training: what went in, and Keras' ``histories`` and final ``weights``."""

    name: str
    network: Network
    optimization: Optimization
    data: StackData
    start: Weights
    histories: dict[str, NDArray[np.float64]]
    weights: Weights


@dataclass(frozen=True)
class Parity:
    """How far an engine is from Keras in one case; `compare` says in what measure."""

    name: str
    history: str
    history_difference: float
    weight_difference: float

    @property
    def within_tolerance(self) -> bool:
        """Whether histories and weights both agree."""
        return self.history_difference <= RELATIVE_TOLERANCE and self.weight_difference <= WEIGHT_TOLERANCE

    def __str__(self) -> str:
        """One line for a table."""
        verdict = "ok" if self.within_tolerance else "DIFFERS"
        return (
            f"{self.name:<28} histories {self.history_difference:.1e} ({self.history}), "
            f"weights {self.weight_difference:.1e}  {verdict}"
        )


def find_cases(folder: Path) -> list[Path]:
    """The ``.npz`` files of ``folder``, sorted; a `UsageError` where there is none."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise UsageError(f"{folder}: no .npz files here; name a folder of recorded histories")
    return files


def load_case(path: Path) -> Case:
    """Read one file; a `UsageError` names the file that is not such a recording."""
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return _case(path.stem, dict(file))
    except (OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path}: not a recorded history ({error!r})") from error


def _case(name: str, arrays: dict[str, NDArray[np.float32]]) -> Case:
    config = json.loads(str(arrays["config"]))
    n_train, n_test = len(arrays["x_train"]), len(arrays["x_test"])
    widths = tuple(config["widths"])
    return Case(
        name=name,
        network=Network(
            inputs=arrays["x_train"].shape[1],
            widths=widths,
            loss=_LOSSES[config["kind"]],
            residual=config["residual"],
            regularizer=config["regularizer"],
            penalty=config["penalty"],
        ),
        optimization=Optimization(
            optimizer=_OPTIMIZERS[config["optimizer"]],
            learning_rate=config["learning_rate"],
            batch_size=config["batch_size"],
            epochs=config["epochs"],
            momentum=config["momentum"],
            shuffle=False,
        ),
        data=StackData(
            x=np.concatenate([arrays["x_train"], arrays["x_test"]]),
            y=np.concatenate([arrays["y_train"], arrays["y_test"]]),
            train_rows=np.arange(n_train)[None],
            test_rows=np.arange(n_train, n_train + n_test)[None],
            train_targets=arrays["y_train"][None],
        ),
        start=_weights(arrays, "weight0", len(widths)),
        histories={name: arrays[f"history_{name}"].astype(np.float64) for name in HISTORIES},
        weights=_weights(arrays, "weight1", len(widths)),
    )


def _weights(arrays: dict[str, NDArray[np.float32]], prefix: str, depth: int) -> Weights:
    """The (kernel, bias) pairs of a one-run stack; the file numbers kernels and biases in turn."""
    return [
        (arrays[f"{prefix}_{2 * layer}"][None], arrays[f"{prefix}_{2 * layer + 1}"][None]) for layer in range(depth)
    ]


def train_case(engine: Engine, case: Case) -> Trained:
    """Train ``case`` as Keras did; rows are not shuffled, so the seed matters to nothing."""
    return engine(case.network, case.optimization, case.data, [0], case.start)


def compare(case: Case, trained: Trained) -> Parity:
    """The largest differences between ``trained`` and Keras.

    Of histories |a - b| / (|b| + 0.01), which is within `RELATIVE_TOLERANCE` where
    |a - b| <= `ABSOLUTE_TOLERANCE` + `RELATIVE_TOLERANCE` |b|; of weights |a - b|.
    """
    floor = ABSOLUTE_TOLERANCE / RELATIVE_TOLERANCE
    differences = {
        name: _largest_difference(trained.histories[name][0], keras, np.abs(keras) + floor)
        for name, keras in case.histories.items()
    }
    worst = max(differences, key=differences.__getitem__)
    weight_difference = max(
        _largest_difference(ours, keras, np.ones_like(keras))
        for ours_layer, keras_layer in zip(trained.weights, case.weights, strict=True)
        for ours, keras in zip(ours_layer, keras_layer, strict=True)
    )
    return Parity(case.name, worst, differences[worst], weight_difference)


def _largest_difference(ours: NDArray[np.float32], keras: NDArray[np.floating], scale: NDArray[np.floating]) -> float:
    """The largest |ours - keras| / scale. A value that is not finite differs infinitely from all but its like."""
    same = (ours == keras) | (np.isnan(ours) & np.isnan(keras))
    with np.errstate(invalid="ignore"):
        difference = np.abs(ours.astype(np.float64) - keras) / scale
    return float(np.max(np.where(same, 0.0, np.where(np.isfinite(difference), difference, np.inf))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a case and a total; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keras_parity", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of recorded .npz files")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="torch")
    options = parser.parse_args(arguments)
    try:
        cases = [load_case(path) for path in find_cases(options.folder)]
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    engine = load_engine(options.engine)
    failures = 0
    for case in cases:
        parity = compare(case, train_case(engine, case))
        failures += not parity.within_tolerance
        print(parity)
    print(f"{len(cases) - failures} of {len(cases)} cases agree with Keras ({options.engine})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""What the article on capacity and trainability found, found again by this package in two hours on two cores each.

``python -m benchmarks.reproduce capacity|infeasible|reruns FOLDER [--workers 2]`` trains what is missing in a store of
that name in FOLDER, and prints a table with the article's numbers beside ours. It may be stopped and started again at
any time. Sizes, steps and numbers of trials are cut as far as that needs; they stand above the table, and options
change them. ``reruns`` takes the best hyperparameters of what ``infeasible`` found.

- ``capacity``: small networks learn random labels by heart; how many bits a parameter they come to know.
- ``infeasible``: random hyperparameters on the counting of brackets; in what share of trials the training diverges.
- ``reruns``: the best of these again and again from other starts; how far their losses are spread.

The article: J. Collins, J. Sohl-Dickstein, D. Sussillo, "Capacity and trainability in recurrent neural networks", ICLR
2017: section 2.1, table 1 and table App.1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import butter_etl as be
from butter_etl.studies.capacity.hyperparameters import parse_hparams

STUDY: Final = "rnn_capacity"
#: Bits that a parameter stores, as the article sums them up.
PAPER_BITS: Final = "3 to 6, about 5"
#: Shares of infeasible trials in percent: random hyperparameters, brackets, 200,000 parameters, depth 1 (table 1).
PAPER_SHARES: Final[Mapping[str, float]] = {"rnn": 21.5, "irnn": 56.7, "ugrnn": 20.2, "gru": 15.5, "lstm": 12.0}


@dataclass(frozen=True)
class PaperReruns:
    """Losses of 100 reruns of the best hyperparameters at 100,000 parameters, and what share failed (table App.1)."""

    original: float
    least: float
    mean: float
    most: float
    infeasible: float


PAPER_RERUNS: Final[Mapping[str, PaperReruns]] = {
    "rnn": PaperReruns(1.16e-2, 1.41e-2, 8.21e-2, 0.294, 0),
    "irnn": PaperReruns(4.20e-4, 2.24e-4, 5.02e-4, 8.69e-4, 48),
    "ugrnn": PaperReruns(1.02e-4, 3.66e-5, 2.71e-4, 6.06e-3, 0),
    "gru": PaperReruns(2.80e-4, 7.66e-5, 1.89e-4, 5.48e-4, 1),
    "lstm": PaperReruns(7.96e-4, 8.10e-4, 2.02e-3, 0.0145, 0),
}


@dataclass(frozen=True)
class Settings:
    """How much is trained: trials a cell, training steps of each, budgets, sequences a step, cores."""

    trials: int
    steps: int
    budgets: tuple[int, ...]
    batch_size: int
    workers: int


USUAL: Final[Mapping[str, Settings]] = {
    "capacity": Settings(60, 50_000, (300, 1_000), 64, 2),
    "infeasible": Settings(60, 1_000, (20_000,), 64, 2),
    "reruns": Settings(20, 1_000, (10_000,), 64, 2),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=sorted(USUAL))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, help="trials of each cell")
    parser.add_argument("--steps", type=int, help="training steps of each trial")
    parser.add_argument("--budgets", type=int, nargs="+", help="budgets of parameters")
    parser.add_argument("--batch-size", type=int, help="sequences a training step")
    parser.add_argument("--workers", type=int, help="cores")
    given = vars(parser.parse_args(arguments))
    usual = USUAL[given["what"]]
    chosen = {name: given[name] for name in Settings.__dataclass_fields__ if given.get(name) is not None}
    settings = Settings(**{**usual.__dict__, **chosen, "budgets": tuple(chosen.get("budgets", usual.budgets))})
    said = {"capacity": reproduce_capacity, "infeasible": reproduce_infeasible, "reruns": reproduce_reruns}
    for line in said[given["what"]](given["folder"], settings):
        print(line, flush=True)
    return 0


def train(store: Path, name: str, cubes: Sequence[Mapping[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Train what a store is missing of some cubes, each of so many trials; return the rows of all trials."""
    spec = store.parent / f"{name}.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    usual = {"min_train_steps": settings.steps, "max_train_steps": settings.steps, "batch_size": settings.batch_size}
    said = {"name": name, "study": STUDY, "repetitions": settings.trials, "cubes": [{**usual, **one} for one in cubes]}
    spec.write_text(json.dumps(said, indent=1), encoding="utf-8")
    report = be.train(store, spec=spec, study=STUDY, workers=settings.workers)
    if report.interrupted:
        raise SystemExit("stopped; the same command goes on")
    if report.failed:
        raise SystemExit(f"{report.failed} trials failed: butter-etl status {store}")
    return landed(store)


def landed(store: Path) -> list[dict[str, Any]]:
    """Return the rows of all trials of a store."""
    rows: list[dict[str, Any]] = be.read_runs(store).compute().to_dict("records")
    return rows


# --- capacity ----------------------------------------------------------------------------------------------------


def reproduce_capacity(folder: Path, settings: Settings) -> Iterator[str]:
    """Yield what small networks of three architectures come to know of random labels, in bits a parameter."""
    architectures = ("rnn", "gru", "lstm")
    cube = {"task_type": "per_cap", "architecture": architectures, "n_layers": 1, "max_params": settings.budgets}
    rows = train(folder / "capacity", "capacity", [{**cube, "n_points": 5}], settings)
    yield (
        f"per_cap, depth 1, {settings.trials} random trials a cell, {settings.steps:,} steps of {settings.batch_size} "
        "(the article: at least 1,000 trials of a Gaussian-process search, 50,000 to 20,000,000 steps)"
    )
    yield ""
    yield "| architecture | parameters | best bits a parameter | of a trial with | learned | article |"
    yield "|---|---|---|---|---|---|"
    for architecture in architectures:
        for budget in settings.budgets:
            trials = [row for row in rows if (row["architecture"], row["max_params"]) == (architecture, budget)]
            best = max(trials, key=lambda row: row["bits_per_parameter"] or 0.0)
            samples = parse_hparams(best["hparams"])["dataset_size"]
            yield (
                f"| {architecture} | {best['num_params']:,} | {best['bits_per_parameter']:.2f} | {samples:,} labels "
                f"| {best['accuracy']:.1%} | {PAPER_BITS} |"
            )


# --- infeasible trials -------------------------------------------------------------------------------------------


def wilson(count: int, of: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    share = count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def reproduce_infeasible(folder: Path, settings: Settings) -> Iterator[str]:
    """Yield what share of trials diverges, by architecture."""
    rows = _infeasible(folder, settings)
    (budget,) = settings.budgets
    yield (
        f"parens_counting, depth 1, {budget:,} parameters, {settings.trials} random trials a cell, at most "
        f"{settings.steps:,} steps of {settings.batch_size} (the article: 200,000 parameters, 1,000 trials, 50,000 to "
        "20,000,000 steps)"
    )
    yield ""
    yield "| architecture | infeasible | Wilson's 95 % interval | article |"
    yield "|---|---|---|---|"
    found = {}
    for architecture, paper in PAPER_SHARES.items():
        trials = [row["infeasible"] for row in rows if row["architecture"] == architecture]
        low, high = found[architecture] = wilson(sum(trials), len(trials))
        share = sum(trials) / len(trials)
        yield f"| {architecture} | {share:.1%} | {low:.1%} to {high:.1%} | {paper:.1f} % |"
    highest = max(high for architecture, (_, high) in found.items() if architecture != "irnn")
    is_above = found["irnn"][0] > highest
    yield ""
    yield f"The interval of irnn lies {'above all others' if is_above else 'not above all others'}."


def _infeasible(folder: Path, settings: Settings) -> list[dict[str, Any]]:
    cube = {"task_type": "parens_counting", "architecture": tuple(PAPER_SHARES), "n_layers": 1}
    few = {"max_params": settings.budgets, "n_points": 1, "eval_size": 256}
    return train(folder / "infeasible", "infeasible", [{**cube, **few}], settings)


# --- reruns ------------------------------------------------------------------------------------------------------


def reproduce_reruns(folder: Path, settings: Settings) -> Iterator[str]:
    """Yield how far the losses of the best hyperparameters are spread over starts."""
    if not (folder / "infeasible").exists():
        raise SystemExit(f"{folder / 'infeasible'} is not there; run `infeasible` first")
    searched = [row for row in landed(folder / "infeasible") if not row["infeasible"]]
    (budget,) = settings.budgets
    cubes, originals = [], {}
    for architecture in PAPER_RERUNS:
        trials = [row for row in searched if row["architecture"] == architecture]
        best = min(trials, key=lambda row: row["valid_loss"][-1])
        originals[architecture] = best["eval_loss"][-1]
        cell = {"task_type": "parens_counting", "architecture": architecture, "n_layers": 1, "max_params": budget}
        again = {**parse_hparams(best["hparams"]), "train_steps": settings.steps}
        cubes.append({**cell, "search": "rerun", "fixed_hparams": again, "n_points": 1, "eval_size": 256})
    rows = train(folder / "reruns", "reruns", cubes, settings)
    yield (
        f"parens_counting, depth 1, {budget:,} parameters, {settings.trials} reruns of the best set of `infeasible`, "
        f"{settings.steps:,} steps of {settings.batch_size}; the original is of its larger networks (the article: "
        "100,000 parameters, 100 reruns of the best of a search)"
    )
    yield ""
    yield "| architecture | | original | least | mean | most | infeasible |"
    yield "|---|---|---|---|---|---|---|"
    for architecture, paper in PAPER_RERUNS.items():
        trials = [row for row in rows if row["architecture"] == architecture]
        losses = [row["eval_loss"][-1] for row in trials if not row["infeasible"]]
        share = 100 * (1 - len(losses) / len(trials))
        spread = f"{min(losses):.3g} | {sum(losses) / len(losses):.3g} | {max(losses):.3g}" if losses else "- | - | -"
        yield f"| {architecture} | ours | {originals[architecture]:.3g} | {spread} | {share:.0f} % |"
        told = f"{paper.least:.3g} | {paper.mean:.3g} | {paper.most:.3g} | {paper.infeasible:.0f} %"
        yield f"| | article | {paper.original:.3g} | {told} |"


if __name__ == "__main__":
    sys.exit(main())

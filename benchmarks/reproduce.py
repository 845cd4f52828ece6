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
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import butter_etl as be
from butter_etl.engines import GATES
from butter_etl.studies.capacity.experiments import SearchCell
from butter_etl.studies.capacity.hyperparameters import parse_hparams
from butter_etl.studies.capacity.sweeps import READER

STUDY: Final = "rnn_capacity"
#: Bits that a parameter stores, as the article sums them up.
PAPER_BITS: Final = "3 to 6, about 5"
#: Shares of infeasible trials in percent: random hyperparameters, brackets, 200,000 parameters, depth 1 (table 1).
PAPER_SHARES: Final[Mapping[str, float]] = {"rnn": 21.5, "irnn": 56.7, "ugrnn": 20.2, "gru": 15.5, "lstm": 12.0}

#: The loss of guessing on ten counts of 0 to 9, in nats.
GUESSING: Final = 10 * math.log(10)
#: So many times that loss no network has at its start: one whose training ends there has been driven away.
LOST: Final = 1000


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
    """How much is trained: trials a cell, training steps of each, budgets, sequences a step, cores.

    ``longer`` are the steps for which the best hyperparameters of ``capacity`` are trained in the end.
    """

    trials: int
    steps: int
    budgets: tuple[int, ...]
    batch_size: int
    workers: int
    longer: int = 0


USUAL: Final[Mapping[str, Settings]] = {
    "capacity": Settings(60, 20_000, (500,), 512, 2, 500_000),
    "infeasible": Settings(60, 300, (200_000,), 64, 2),
    "reruns": Settings(20, 10_000, (10_000,), 64, 2),
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
    parser.add_argument("--longer", type=int, help="of capacity: steps of the best hyperparameters in the end")
    given = vars(parser.parse_args(arguments))
    usual = USUAL[given["what"]]
    chosen = {name: given[name] for name in Settings.__dataclass_fields__ if given.get(name) is not None}
    settings = Settings(**{**usual.__dict__, **chosen, "budgets": tuple(chosen.get("budgets", usual.budgets))})
    said = {"capacity": reproduce_capacity, "infeasible": reproduce_infeasible, "reruns": reproduce_reruns}
    for line in said[given["what"]](given["folder"], settings):
        print(line, flush=True)
    return 0


def train(
    store: Path, name: str, cubes: Sequence[Mapping[str, Any]], settings: Settings, trials: int
) -> list[dict[str, Any]]:
    """Train what a store is missing of some cubes, each of so many trials; return the rows of all of them."""
    steps = {"min_train_steps": settings.steps, "max_train_steps": settings.steps}
    wanted = [{**steps, "batch_size": settings.batch_size, **one} for one in cubes]
    # Other settings are another sweep.
    name = f"{name}_{hashlib.sha256(json.dumps([trials, wanted]).encode()).hexdigest()[:8]}"
    spec = store.parent / f"{name}.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    said = {"name": name, "study": STUDY, "repetitions": trials, "cubes": wanted}
    spec.write_text(json.dumps(said, indent=1), encoding="utf-8")
    report = be.train(store, spec=spec, study=STUDY, workers=settings.workers)
    if report.interrupted:
        raise SystemExit("stopped; the same command goes on")
    if report.failed:
        raise SystemExit(f"{report.failed} trials failed: butter-etl status {store}")
    rows: list[dict[str, Any]] = be.read_runs(store).compute().to_dict("records")
    cells = set(READER.load(spec).experiments())
    return [row for row in rows if _cell_of(row) in cells and row["repetition"] < trials]


def _cell_of(row: Mapping[str, Any]) -> SearchCell:
    command = json.loads(row["command"])
    return SearchCell.of_canonical(command)


# --- capacity ----------------------------------------------------------------------------------------------------

#: Labels a parameter that the best hyperparameters are to learn when they are trained longer.
_LABELS: Final = (4.3, 4.8)
#: Hyperparameters that were set by hand, within the ranges of the search; those of gates are the same for each.
_BY_HAND: Final[Mapping[str, Any]] = {
    "optimizer": "ADAM",
    "optimizer_logit_momentum": 1.0,
    "lr_init": 0.03,
    "lr_decay_rate": 0.01,
    "gradient_clip_val": 10.0,
    "l2_decay": 1e-8,
    "nonlinearity": "tanh",
    "recurrent_matrix_init_type": "normal",
    "recurrent_bias_init_type": "normal",
    "input_every_step": 0,
}
_OF_GATES: Final = {"recurrent_matrix_scale": 1.5, "input_scale": 1.0, "recurrent_bias_scale": 0.5}
#: How many of the best go on, and for what part of the longest training: fewer for longer.
_ROUNDS: Final = ((8, 0.1), (1, 1.0))
#: Width of the vectors by budget, hardly more than tells ten labels a parameter apart: inputs have parameters, too.
_WIDTHS: Final[Mapping[int, int]] = {500: 13, 1_000: 14, 2_000: 15}


def reproduce_capacity(folder: Path, settings: Settings) -> Iterator[str]:
    """Yield what small networks of three architectures come to know of random labels, in bits a parameter.

    Few random trials have both good hyperparameters and about as many labels as can be learned. So the best of the
    search are trained once more, in rounds, on more labels and for longer.
    """
    both = [(architecture, budget) for budget in settings.budgets for architecture in ("rnn", "gru", "lstm")]
    cells: list[dict[str, Any]] = [
        {"architecture": architecture, "max_params": budget} for architecture, budget in both
    ]
    cubes = [
        {"task_type": "per_cap", "n_layers": 1, "n_points": 5, **cell, "input_size": _WIDTHS.get(cell["max_params"])}
        for cell in cells
    ]
    found = [train(folder / "capacity", "search", cubes, settings, settings.trials)]
    for number, (best, part) in enumerate(_ROUNDS):
        steps = round(part * settings.longer)
        again = [
            {**cube, "search": "rerun", "fixed_hparams": _longer(_of_cell(found[-1], cell), best, steps)}
            for cell, cube in zip(cells, cubes, strict=True)
        ]
        found.append(train(folder / "capacity", f"round{number}", again, settings, 1))
    fixed = [
        {**cube, "search": "rerun", "fixed_hparams": _by_hand(found[0], cell, settings.longer)}
        for cell, cube in zip(cells, cubes, strict=True)
    ]
    found.append(train(folder / "capacity", "by_hand", fixed, settings, 1))
    rounds = ", ".join(f"the best {best} for {round(part * settings.longer):,} steps" for best, part in _ROUNDS)
    yield (
        f"per_cap, depth 1: {settings.trials} random trials a cell, {settings.steps:,} steps of {settings.batch_size}; "
        f"of their sets, on {' and '.join(map(str, _LABELS))} labels a parameter, {rounds}; a set by hand as "
        "long (the article: at least 1,000 trials of a Gaussian-process search, 50,000 to 20,000,000 steps)"
    )
    yield ""
    rounds_said = "search | longer | longest | by hand"
    yield f"| architecture | parameters | bits a parameter: {rounds_said} | labels | learned | article |"
    yield f"|{'---|' * 9}"
    for cell in cells:
        bests = [max(_of_cell(rows, cell), key=bits_of) for rows in found]
        most = max(bests, key=bits_of)
        labels = parse_hparams(most["hparams"])["dataset_size"]
        yield (
            f"| {cell['architecture']} | {most['num_params']:,} | {' | '.join(f'{bits_of(row):.2f}' for row in bests)} "
            f"| {labels:,} | {most['accuracy']:.1%} | {PAPER_BITS} |"
        )


def _of_cell(rows: Sequence[Mapping[str, Any]], cell: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in cell.items())]


def _by_hand(rows: Sequence[Mapping[str, Any]], cell: Mapping[str, Any], steps: int) -> list[dict[str, Any]]:
    """Return the set by hand of an architecture, on as many labels as are wanted."""
    architecture, parameters = cell["architecture"], _of_cell(rows, cell)[0]["num_params"]
    gates = {f"{key}_{gate}": value for gate in GATES[architecture] for key, value in _OF_GATES.items()}
    forget = {} if architecture == "rnn" else {"forget_gate_bias_hack": 1.0}
    return [
        {**_BY_HAND, **gates, **forget, "train_steps": steps, "dataset_size": round(labels * parameters)}
        for labels in _LABELS
    ]


def _longer(rows: Sequence[Mapping[str, Any]], best: int, steps: int) -> list[dict[str, Any]]:
    """Return the best sets of some trials for so many steps, each on as many labels as are wanted."""
    sets: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=bits_of, reverse=True):
        hparams = {**parse_hparams(row["hparams"]), "train_steps": steps, "dataset_size": None}
        sets.setdefault(json.dumps(hparams, sort_keys=True), hparams)
    parameters = rows[0]["num_params"]
    return [
        {**one, "dataset_size": round(labels * parameters)} for one in list(sets.values())[:best] for labels in _LABELS
    ]


def bits_of(row: Mapping[str, Any]) -> float:
    """Return the bits a parameter of a trial, 0 of an infeasible one."""
    bits = row["bits_per_parameter"]
    return 0.0 if bits is None or math.isnan(bits) else float(bits)


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
    kinds: dict[str, Callable[[Mapping[str, Any]], bool]] = {
        "infeasible": lambda row: bool(row["infeasible"]),
        "lost": lambda row: not row["train_loss"][-1] < LOST * GUESSING,
    }
    yield "| architecture | infeasible | Wilson's 95 % interval | lost | Wilson's 95 % interval | article |"
    yield "|---|---|---|---|---|---|"
    found: dict[str, dict[str, tuple[float, float]]] = {kind: {} for kind in kinds}
    for architecture, paper in PAPER_SHARES.items():
        trials = [row for row in rows if row["architecture"] == architecture]
        said = []
        for kind, is_so in kinds.items():
            count = sum(map(is_so, trials))
            low, high = found[kind][architecture] = wilson(count, len(trials))
            said.append(f"{count / len(trials):.1%} | {low:.1%} to {high:.1%}")
        yield f"| {architecture} | {' | '.join(said)} | {paper:.1f} % |"
    yield ""
    yield f"Lost are those that are infeasible or end with a training loss more than {LOST:,} times that of guessing."
    for kind, intervals in found.items():
        highest = max(high for architecture, (_, high) in intervals.items() if architecture != "irnn")
        where = "above all others" if intervals["irnn"][0] > highest else "not above all others"
        yield f"Of {kind} trials, the interval of irnn lies {where}."


def _infeasible(folder: Path, settings: Settings) -> list[dict[str, Any]]:
    cube = {"task_type": "parens_counting", "architecture": tuple(PAPER_SHARES), "n_layers": 1}
    few = {"max_params": settings.budgets, "n_points": 1, "eval_size": 256}
    return train(folder / "infeasible", "infeasible", [{**cube, **few}], settings, settings.trials)


# --- reruns ------------------------------------------------------------------------------------------------------


def reproduce_reruns(folder: Path, settings: Settings) -> Iterator[str]:
    """Yield how far the losses of the best hyperparameters are spread over starts."""
    if not (folder / "infeasible").exists():
        raise SystemExit(f"{folder / 'infeasible'} is not there; run `infeasible` first")
    found = be.read_runs(folder / "infeasible").compute().to_dict("records")
    searched = [row for row in found if not row["infeasible"]]
    (budget,) = settings.budgets
    cubes, originals = [], {}
    for architecture in PAPER_RERUNS:
        trials = [row for row in searched if row["architecture"] == architecture]
        best = min(trials, key=lambda row: row["valid_loss"][-1])
        originals[architecture] = best["eval_loss"][-1]
        cell = {"task_type": "parens_counting", "architecture": architecture, "n_layers": 1, "max_params": budget}
        again = {**parse_hparams(best["hparams"]), "train_steps": settings.steps}
        cubes.append({**cell, "search": "rerun", "fixed_hparams": again, "n_points": 1, "eval_size": 256})
    rows = train(folder / "reruns", "reruns", cubes, settings, settings.trials)
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

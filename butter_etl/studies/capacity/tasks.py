"""The tasks that networks are tried on: sequences, what is wanted of them, and the loss.

All data come from one stream of random numbers, that of the task and the cell's data seed: they are the same for all
trials, whatever else these are. A training batch is a function of its step; validation and evaluation sets have words
of their own. Facts are those of Collins, Sohl-Dickstein and Sussillo, "Capacity and trainability in recurrent neural
networks", ICLR 2017, appendix B; what it leaves open is decided as docs/capacity.md says.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import Objective, Sequences, Shown, Stream, philox, ready, words
from butter_etl.engines import permutation as permuted
from butter_etl.errors import DatasetError
from butter_etl.studies.capacity import task_kernels
from butter_etl.studies.capacity.experiments import SearchCell

Hparams = Mapping[str, Any]
Part = Literal["train", "valid", "eval"]
#: The parts of a step's words that sequences of each set are made of; tables that they are drawn from have others.
_PARTS: Final[Mapping[Part, int]] = {"train": 0, "valid": 1, "eval": 2}
_TABLE, _ORDER = 3, 4
#: Sequences that are evaluated at once.
_AT_ONCE: Final = 256
_HALF: Final = 1 << 16

#: The letters of text8.
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz "
#: The first steps of a text, which only warm the state up.
WARM_UP: Final = 13
#: The characters of sums.
SYMBOLS: Final = "0123456789+-= "
#: The characters of each number of a sum, and of the answer; the steps that networks may have to compute, at most.
NUMBER_WIDTH: Final = 9
ANSWER_WIDTH: Final = 10
MOST_COMPUTE_STEPS: Final = 6
LARGEST_NUMBER: Final = 10**7
#: Types of brackets, each with a stream of its own; what a stream has; and what is counted up to.
BRACKETS: Final = 10
NOISE: Final = 10
STREAM_SYMBOLS: Final = 2 * BRACKETS + NOISE
COUNTS: Final = 10
#: The samples of the random continuous function, and what is added to their numbers in their weights.
SAMPLES: Final = 10**6
WEIGHT_OFFSET: Final = 5000


class TaskData:
    """The data of a cell's task. ``letters`` are those of text8 as uint8, 0 to 26."""

    inputs: int
    outputs: int

    def __init__(self, cell: SearchCell, letters: NDArray[np.uint8] | None = None) -> None:
        self.cell, self.letters = cell, letters
        self.steps = cell.unroll_steps or 0
        digest = hashlib.sha256(f"rnn_capacity data 1 {cell.task_type} {cell.data_seed}".encode()).digest()
        #: The seed of all random numbers of the task.
        self.seed = int.from_bytes(digest[:8], "big")

    def objective(self, hparams: Hparams) -> Objective:
        """Return the loss of a trial."""
        raise NotImplementedError

    def sequences(self, hparams: Hparams, part: Part, step: int, rows: int) -> Sequences:
        """Return so many sequences of a set; those of training are of a step."""
        raise NotImplementedError

    def batch(self, hparams: Hparams, step: int) -> Sequences:
        """Return the batch that a step is taken on; ``step`` is the number of steps before it."""
        return self.sequences(hparams, "train", step, self.cell.batch_size)

    def held_out(self, hparams: Hparams, part: Part) -> Iterator[Sequences]:
        """Yield the validation or the evaluation set, some sequences at a time."""
        yield from _in_parts(self._kept(part, hparams.get("compute_steps")))

    def _kept(self, part: Part, compute_steps: int | None) -> Sequences:
        kept = self._sets.get((part, compute_steps))
        if kept is None:  # two threads may both make it: it is the same
            kept = self.sequences({"compute_steps": compute_steps}, part, 0, self.cell.eval_size)
            self._sets[part, compute_steps] = kept
        return kept

    @cached_property
    def _sets(self) -> dict[tuple[Part, int | None], Sequences]:
        return {}

    @property
    def sha256(self) -> str | None:
        """Return a hash of what is not made of random numbers; None where all is."""
        return None

    def _words(self, part: Part, step: int, count: int) -> NDArray[np.uint32]:
        return words(self.seed, Stream.TASK_DATA, count, step, _PARTS[part])


def _in_parts(whole: Sequences) -> Iterator[Sequences]:
    for first in range(0, whole.rows, _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        shown = whole.inputs
        inputs = shown._replace(vectors=shown.vectors[some]) if isinstance(shown, Shown) else shown[some]
        yield Sequences(inputs, whole.targets[some])


def _words_of(seed: int, steps: NDArray[np.int64], count: int, part: int) -> NDArray[np.uint32]:
    """Return the first ``count`` words of some steps, uint32 (steps, count)."""
    blocks = -(-count // 4)
    counters = np.zeros((4, steps.size * blocks), np.uint64)
    counters[0] = np.tile(np.arange(blocks, dtype=np.uint64), steps.size)
    counters[1] = np.repeat(steps.astype(np.uint64), blocks)
    counters[2] = int(Stream.TASK_DATA)
    counters[3] = part
    key = seed & 0xFFFFFFFF, seed >> 32
    return philox(counters, key).T.reshape(steps.size, -1)[:, :count]


def _uniform(drawn: NDArray[np.uint32]) -> NDArray[np.float64]:
    return (drawn.astype(np.float64) + 0.5) * 2.0**-32


def _below(drawn: NDArray[np.uint32], bound: int) -> NDArray[np.int64]:
    return ((drawn.astype(np.uint64) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


class Perceptron(TaskData):
    """per_cap: to learn random labels of random binary vectors by heart; all sets are the same.

    The vectors are distinct. A trial learns the first ``dataset_size`` of them, in a new order in each pass.
    """

    outputs = 1

    def __init__(self, cell: SearchCell, letters: NDArray[np.uint8] | None = None) -> None:
        super().__init__(cell, letters)
        self.inputs = cell.input_size or 0
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._table: tuple[NDArray[np.float32], NDArray[np.uint8]] | None = None

    def objective(self, hparams: Hparams) -> Objective:
        """Return the loss: binary cross entropy after the last step."""
        del hparams
        return Objective("logistic", self.steps - 1, self.steps)

    def batch(self, hparams: Hparams, step: int) -> Sequences:
        """Return the batch of a step: the vectors in a new order in each pass, batches going on over its end."""
        count, left = int(hparams["dataset_size"]), self.cell.batch_size
        epoch, first = divmod(step * left, count)
        parts = []
        while left:
            parts.append(self._order(count, epoch)[first : first + left])
            left, epoch, first = left - parts[-1].size, epoch + 1, 0
        return self._rows(hparams, parts[0] if len(parts) == 1 else np.concatenate(parts))

    def held_out(self, hparams: Hparams, part: Part) -> Iterator[Sequences]:
        """Yield all that a trial learns."""
        del part
        yield from _in_parts(self._rows(hparams, np.arange(int(hparams["dataset_size"]))))

    def _order(self, count: int, epoch: int) -> NDArray[np.int64]:
        order = self._orders.get((count, epoch))
        if order is None:
            order = permuted(self.seed + _ORDER, Stream.TASK_DATA, count, epoch)
            if len(self._orders) > 64:
                self._orders.clear()
            self._orders[count, epoch] = order
        return order

    def _rows(self, hparams: Hparams, rows: NDArray[np.int64]) -> Sequences:
        vectors, labels = self._samples(int(hparams["dataset_size"]))
        return Sequences(Shown(vectors[rows], self.steps, bool(hparams["input_every_step"])), labels[rows])

    def _samples(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return at least so many vectors of 0 and 1, no two the same, and their labels uint8 (count, 1)."""
        table = self._table
        if table is None or len(table[0]) < count:
            table = self._table = self._drawn(count)
        return table

    def _drawn(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        if count > 2**self.inputs:
            raise DatasetError(f"there are no {count} distinct vectors of {self.inputs} bits; give a larger input_size")
        needed, across = -(-self.inputs // 32), count
        while True:
            drawn = _words_of(self.seed, np.arange(across), needed + 1, _TABLE)
            if self.inputs % 32:
                drawn[:, needed - 1] >>= np.uint32(32 - self.inputs % 32)
            _, first = np.unique(drawn[:, :needed], axis=0, return_index=True)
            if first.size >= count:
                break
            across += max(2 * (count - first.size), 64)
        chosen = drawn[np.sort(first)[:count]]
        bits = np.arange(self.inputs)
        vectors = (chosen[:, bits // 32] >> (bits % 32).astype(np.uint32)) & np.uint32(1)
        return vectors.astype(np.float32), (chosen[:, needed:] >> np.uint32(31)).astype(np.uint8)


class Memory(TaskData):
    """mem_thru: to give back, after the last step, numbers that were shown at the first one.

    They are uniform with variance 1.
    """

    def __init__(self, cell: SearchCell, letters: NDArray[np.uint8] | None = None) -> None:
        super().__init__(cell, letters)
        self.inputs = self.outputs = cell.input_size or 0

    def objective(self, hparams: Hparams) -> Objective:
        """Return the loss: mean squared error after the last step."""
        del hparams
        return Objective("squared", self.steps - 1, self.steps)

    def sequences(self, hparams: Hparams, part: Part, step: int, rows: int) -> Sequences:
        """Return sequences of a set."""
        del hparams
        drawn = _uniform(self._words(part, step, rows * self.inputs)).reshape(rows, self.inputs)
        values = ((2.0 * drawn - 1.0) * math.sqrt(3.0)).astype(np.float32)
        return Sequences(Shown(values, self.steps, False), values)


class Function(TaskData):
    """rcf: a random function, a table of normal vectors with normal numbers, early entries of which come more often.

    Entry i, from 1, is drawn as often as 1 / (i + 5000) says. All sets are of one table.
    """

    outputs = 1

    def __init__(self, cell: SearchCell, letters: NDArray[np.uint8] | None = None) -> None:
        super().__init__(cell, letters)
        self.inputs = cell.input_size or 0

    def objective(self, hparams: Hparams) -> Objective:
        """Return the loss: squared error after the last step."""
        del hparams
        return Objective("squared", self.steps - 1, self.steps)

    def sequences(self, hparams: Hparams, part: Part, step: int, rows: int) -> Sequences:
        """Return sequences of a set."""
        del hparams
        places = _uniform(self._words(part, step, rows))
        entries = np.searchsorted(weights_so_far(), places * weights_so_far()[-1], side="right")
        vectors, values = self.entries(np.minimum(entries, SAMPLES - 1))
        return Sequences(Shown(vectors, self.steps, True), values)

    def entries(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the vectors and the values, float32 (entries, 1), of entries of the table, numbered from 0."""
        drawn = _uniform(_words_of(self.seed, numbers, 2 * (self.inputs + 1), _TABLE))
        first, second = drawn[:, : self.inputs + 1], drawn[:, self.inputs + 1 :]
        normal = (np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)).astype(np.float32)
        return np.ascontiguousarray(normal[:, :-1]), normal[:, -1:]


@lru_cache(maxsize=1)
def weights_so_far() -> NDArray[np.float64]:
    """Return the weights 1 / (i + 5000) of entries i = 1, 2, … of the random function, added up."""
    return np.cumsum(1.0 / (np.arange(1, SAMPLES + 1) + WEIGHT_OFFSET))


class Text(TaskData):
    """text8: to foretell the next character of a text, from random places on.

    The first nine tenths are learned from, a twentieth each is validated and evaluated on.
    """

    inputs = outputs = len(LETTERS)

    def objective(self, hparams: Hparams) -> Objective:
        """Return the loss: mean cross entropy over the steps after the first thirteen."""
        del hparams
        return Objective("softmax", min(WARM_UP, self.steps - 1), self.steps, mean_over_steps=True)

    def sequences(self, hparams: Hparams, part: Part, step: int, rows: int) -> Sequences:
        """Return sequences of a set."""
        section = self.sections[part]
        places = _below(self._words(part, step, rows), section.size - self.steps)
        found = section[places[:, None] + np.arange(self.steps + 1)]
        first = self.objective(hparams).first
        return Sequences(found[:, :-1, None].astype(np.int32), found[:, first + 1 :, None].astype(np.int64))

    @cached_property
    def sections(self) -> Mapping[Part, NDArray[np.uint8]]:
        """Return the sections of the text. Raises DatasetError where it is too short for a sequence in each."""
        if self.letters is None:
            raise DatasetError("text8 needs a text")
        ends = [0, *(self.letters.size * share // 20 for share in (18, 19, 20))]
        found = {part: self.letters[first:last] for part, (first, last) in zip(_PARTS, pairwise(ends), strict=True)}
        if min(one.size for one in found.values()) <= self.steps:
            raise DatasetError(
                f"a text of {self.letters.size} letters is too short: a twentieth of it must have more than "
                f"{self.steps} letters"
            )
        return found

    @property
    def sha256(self) -> str | None:
        """Return the hash of the text's letters."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return "" if self.letters is None else letters_sha256(self.letters)


def letters_sha256(letters: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of letters as characters, in hexadecimal."""
    return hashlib.sha256(np.frombuffer(LETTERS.encode(), np.uint8)[letters].tobytes()).hexdigest()


class Brackets(TaskData):
    """parens_counting: streams of brackets and noise, and how many of its own type are open in each at the end.

    A symbol is a letter or a bracket, as likely as each other, and any of these. The symbols of a stream are numbered:
    opening brackets of types 0 to 9, closing ones, letters. Brackets of other types count for nothing.
    """

    inputs = BRACKETS * STREAM_SYMBOLS
    outputs = BRACKETS * COUNTS

    def objective(self, hparams: Hparams) -> Objective:
        """Return the loss: the sum of ten cross entropies after the last step."""
        del hparams
        return Objective("softmax", self.steps - 1, self.steps, groups=BRACKETS)

    def sequences(self, hparams: Hparams, part: Part, step: int, rows: int) -> Sequences:
        """Return sequences of a set."""
        del hparams
        indices = np.empty(rows * self.steps * BRACKETS, np.int32)
        counts = np.empty(rows * BRACKETS, np.int64)
        _prepare_brackets()
        words_of = self.seed & 0xFFFFFFFF, self.seed >> 32, step, int(Stream.TASK_DATA), _PARTS[part]
        task_kernels.count_brackets(*words_of, self.steps, indices, counts, _bracket_room())
        return Sequences(indices.reshape(rows, self.steps, BRACKETS), counts.reshape(rows, 1, BRACKETS))


@cache
def _prepare_brackets() -> None:
    """Load or compile what draws brackets."""
    indices, counts = np.zeros(BRACKETS, np.int32), np.zeros(BRACKETS, np.int64)
    arguments = (0, 0, 0, 0, 0, 1, indices, counts, _bracket_room())
    ready(task_kernels.count_brackets, arguments, [Path(task_kernels.__file__)])


def _bracket_room() -> NDArray[np.uint32]:
    return np.empty(4 * task_kernels.LANES, np.uint32)


class Arithmetic(TaskData):
    """arithmetic: sums of two numbers in characters, such as ``-343243+93851=``, and the answer in characters.

    Each number fills nine characters from the right. While a network computes and answers it is shown ``=``.
    """

    inputs = outputs = len(SYMBOLS)

    def objective(self, hparams: Hparams) -> Objective:
        """Return the loss: the sum of the cross entropies of the answer's characters."""
        first = 2 * (NUMBER_WIDTH + 1) + int(hparams["compute_steps"])
        return Objective("softmax", first, first + ANSWER_WIDTH)

    def sequences(self, hparams: Hparams, part: Part, step: int, rows: int) -> Sequences:
        """Return sequences of a set."""
        del hparams
        numbers = _below(self._words(part, step, 2 * rows), 2 * LARGEST_NUMBER + 1) - LARGEST_NUMBER
        pairs = numbers.reshape(rows, 2).tolist()
        shown = "".join(question(*pair).ljust(self.steps, "=") for pair in pairs)
        wanted = "".join(f"{sum(pair):>{ANSWER_WIDTH}}" for pair in pairs)
        return Sequences(
            symbol_indices(shown).reshape(rows, self.steps, 1).astype(np.int32),
            symbol_indices(wanted).reshape(rows, ANSWER_WIDTH, 1),
        )


def question(first: int, second: int) -> str:
    """Return the sum of two numbers as networks are shown it."""
    return f"{first:>{NUMBER_WIDTH}}+{second:>{NUMBER_WIDTH}}="


def symbol_indices(text: str) -> NDArray[np.int64]:
    """Return the numbers of the characters of sums, int64."""
    return _SYMBOL_OF[np.frombuffer(text.encode("ascii"), np.uint8)]


_SYMBOL_OF: Final = np.zeros(128, np.int64)
_SYMBOL_OF[np.frombuffer(SYMBOLS.encode(), np.uint8)] = np.arange(len(SYMBOLS))

#: The tasks, by the name that cells give them.
TASKS: Final[Mapping[str, type[TaskData]]] = {
    "per_cap": Perceptron,
    "mem_thru": Memory,
    "rcf": Function,
    "text8": Text,
    "parens_counting": Brackets,
    "arithmetic": Arithmetic,
}


def task_data(cell: SearchCell, letters: NDArray[np.uint8] | None = None) -> TaskData:
    """Return the data of a cell's task."""
    return TASKS[cell.task_type](cell, letters)


def sizes(cell: SearchCell) -> tuple[int, int]:
    """Return how many inputs and outputs a cell's networks have."""
    data = task_data(cell)
    return data.inputs, data.outputs

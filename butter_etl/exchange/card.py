"""The data card: ``README.md`` of a published data set, under the headings of the published document.

Made of the manifest's facts and the schemas alone, so the same data have the same card.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

import pyarrow as pa

from butter_etl.errors import counted
from butter_etl.exchange.manifest import ManifestDirectory, ManifestFile, sorted_values
from butter_etl.exchange.recipes import recipes, spelled_type
from butter_etl.store import key_text
from butter_etl.studies import (
    COLUMNS,
    NOBODY,
    PARTITION_KEYS,
    REFERENCES,
    RUN_SCHEMA,
    SUMMARY_SCHEMA,
    Attribution,
    Value,
    disclaimer,
)

README = "README.md"
_MOST_VALUES = 8
_WIDTH = 110
_FRAMES = {"runs": "training runs", "summary": "summaries of experiments", "executive": "executive summaries"}


def data_card(
    directories: Iterable[ManifestDirectory], files: Iterable[ManifestFile], attribution: Attribution = NOBODY
) -> str:
    """Return the text of the data card of these directories; ``files`` say which archives there are."""
    there = list(directories)
    present = sorted(files, key=lambda file: file.path)
    sections = [
        f"# {attribution.named()}\n",
        "## Description\n",
        *_description(there),
        "## Directory structure\n",
        *_structure(there, present),
        "## Data Format\n",
        *_format(there),
        "## Code Examples\n",
        *_examples(there),
        "## References\n",
        "\n".join(f"- {one}" for one in REFERENCES) + "\n",
        "## Disclaimer and Attribution\n",
        f"{disclaimer(attribution)}\n",
    ]
    return "\n".join(sections)


# --- description --------------------------------------------------------------------------------------------------


def _description(directories: list[ManifestDirectory]) -> Iterator[str]:
    runs = max((one.rows for one in directories if one.frame == "runs"), default=0)
    experiments = max((one.experiments for one in directories), default=0)
    sweeps = sorted({one.sweep for one in directories if one.sweep})
    yield _paragraph("""
        Learning curves of dense, fully connected networks over sweeps of their hyperparameters. An *experiment* is one
        setting of every hyperparameter; a *run* is one training of it, with its own random seed, split of the data and
        start weights. Twenty statistics were recorded after every epoch, on the training and on the test set. Summaries
        give the distribution of a statistic over the runs of an experiment, epoch by epoch.
    """)
    held = counted(experiments, "experiment") + (f" and {counted(runs, 'run')}" if runs else "")
    of = f" of the {'sweeps' if len(sweeps) > 1 else 'sweep'} {', '.join(sweeps)}"
    chosen = f"experiments{of}" if sweeps else "all experiments of a study, or those that meet conditions"
    yield _paragraph(f"The largest directory holds {held}. The directories hold {chosen}. What was swept:")
    yield "| parameter | values |\n|---|---|"
    for key in _keys(directories):
        values = _united([one.values[key] for one in directories if key in one.values])
        yield f"| `{key}` | {_values_text(values)} |"
    yield ""
    yield _paragraph("""
        The curves serve the study of how architecture, size, regularization, noise and optimization shape learning,
        and as a benchmark for the prediction of learning curves. The data sets that were learned from are public ones,
        of PMLB and scikit-learn, but for those that whoever made the runs brought along under other names.
    """)


def _keys(directories: list[ManifestDirectory]) -> list[str]:
    return list(dict.fromkeys(key for one in directories for key in one.values))


def _united(lists: list[list[Value]]) -> list[Value]:
    return sorted_values(value for one in lists for value in one)


def _values_text(values: list[Value]) -> str:
    words = [_word(value) for value in values]
    if len(words) <= _MOST_VALUES:
        return ", ".join(words) or "none"
    first = 1 if values[0] is None else 0
    null = "null, and " if first else ""
    return f"{null}{len(words) - first} from {words[first]} to {words[-1]}"


def _word(value: Value) -> str:
    return "null" if value is None else f"`{key_text(value)}`"


# --- directories --------------------------------------------------------------------------------------------------


def _structure(directories: list[ManifestDirectory], files: list[ManifestFile]) -> Iterator[str]:
    archives = {file.path: file for file in files if file.path.endswith(".tar")}
    yield "| directory | holds | experiments | rows | files | size |\n|---|---|---|---|---|---|"
    for one in directories:
        counts = " | ".join(map(_count, (one.experiments, one.rows, one.files)))
        yield f"| `{one.name}/` | {_holds(one)} | {counts} | {_size(one.bytes)} |"
        archive = archives.get(f"{one.name}.tar")
        if archive is not None:
            yield f"| `{archive.path}` | an archive of `{one.name}/` | | | | {_size(archive.bytes)} |"
    yield "\nEach directory is a Parquet data set, partitioned by eight keys. One of the files:\n"
    yield f"```text\n{next((file.path for file in files if file.path.endswith('.parquet')), '')}\n```\n"
    yield _paragraph("""
        The keys are in the path and not in the files. Null is `__HIVE_DEFAULT_PARTITION__`; numbers are written as the
        shortest decimal. `_common_metadata` in each directory is its schema, keys included. An experiment has the same
        `experiment_id` everywhere, and it never spans partitions.
    """)
    yield _paragraph("""
        `manifest.json` lists every file with its size, rows and SHA-256. `croissant.json` describes the data for
        machines (Croissant). `CITATION.cff` and `LICENSE` say how to cite and to use them.
    """)


def _holds(one: ManifestDirectory) -> str:
    of = f" of the {one.sweep} sweep" if one.sweep else ""
    where = f", where {' and '.join(f'`{condition}`' for condition in one.where)}" if one.where else ""
    return f"{_FRAMES[one.frame]}{of}{where}"


def _count(number: int) -> str:
    return f"{number:,}"


def _size(size: int) -> str:
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


# --- columns ------------------------------------------------------------------------------------------------------


def _format(directories: list[ManifestDirectory]) -> Iterator[str]:
    frames = {one.frame for one in directories}
    yield _paragraph("""
        A list has one element an epoch (`widths`: one a layer); the first element is the first epoch. Statistics of the
        training set are means over the batches of an epoch, each measured before its update; statistics of the
        test set are of the weights at the end of the epoch. Averages, deviations, minima and maxima are over finite
        values; quantiles rank values that are not finite above all others. All directories of a kind have one schema.
    """)
    if frames & {"summary", "executive"}:
        yield "### Experiment Summary Schema\n"
        yield from _table(SUMMARY_SCHEMA)
        yield ""
    if "executive" in frames:
        yield _paragraph("""
            The executive summary has the same columns but for the lists: of those, only `widths`, `test_loss_q1`,
            `test_loss_median` and `test_loss_q3`.
        """)
    if "runs" in frames:
        yield "### Run Schema\n"
        yield from _table(RUN_SCHEMA)
        yield ""


def _table(schema: pa.Schema) -> Iterator[str]:
    yield "| column | type | meaning |\n|---|---|---|"
    for field in schema:
        key = "; a partition key" if field.name in PARTITION_KEYS else ""
        yield f"| `{field.name}` | {spelled_type(field.type)} | {COLUMNS[field.name].note}{key} |"


# --- code ---------------------------------------------------------------------------------------------------------


def _examples(directories: list[ManifestDirectory]) -> Iterator[str]:
    yield "Each reads a directory as `frame`, with the right types, from the folder that this file is in.\n"
    yield _paragraph("""
        Say what the partition keys are, as these do. Left to guess, DuckDB takes `learning_rate=0.0001` for text,
        Polars for a float64 and pandas for a category, and pyarrow and pandas fail where a key is null in all paths.
        The keys are float32: compare them with a float32, or with a range. With the package `butter_etl`,
        `butter_etl.read_export(directory)` is a Dask dataframe with all of this seen to. The examples in Python are
        run by the tests of that package, the one in R is not.
    """)
    for one in directories:
        if not one.files:
            continue  # readers refuse a pattern that matches nothing
        yield f"### `{one.name}`\n"
        for reader, (language, code) in recipes(one.name).items():
            yield f"{reader}:\n\n```{language}\n{code}```\n"


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"

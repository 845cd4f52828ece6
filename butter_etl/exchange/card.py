"""The data card: ``README.md`` of a published data set, under the headings of the published document.

Made of the manifest's facts and what the study declares alone, so the same data have the same card.
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
    NOBODY,
    Attribution,
    Format,
    Origins,
    Points,
    Study,
    Value,
    disclaimer,
    origin_notes,
    origin_warning,
)

README = "README.md"
_MOST_VALUES = 8
_WIDTH = 110
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_FRAMES = {
    "runs": "training runs",
    "summary": "summaries of experiments",
    "executive": "executive summaries",
    "precision": "confidence intervals",
}


def data_card(
    study: Study,
    directories: Iterable[ManifestDirectory],
    files: Iterable[ManifestFile],
    attribution: Attribution = NOBODY,
    origins: Origins | None = None,
) -> str:
    """Return the text of the data card of these directories; ``files`` say which archives there are.

    ``origins`` are the sources of imported runs, with their numbers of experiments.
    """
    there = list(directories)
    present = sorted(files, key=lambda file: file.path)
    sections = [
        f"# {attribution.named(study.card)}\n",
        "## Description\n",
        *_description(study, there),
        "## Directory structure\n",
        *_structure(study, there, present),
        "## Data Format\n",
        *_formats(study, there),
        *_format(study, there),
        *_examples(study, there),
        *_references(study),
        "## Disclaimer and Attribution\n",
        *_attribution(study, attribution, origins or {}),
    ]
    return "\n".join(sections)


def _attribution(study: Study, attribution: Attribution, origins: Origins) -> Iterator[str]:
    if origins:
        yield _paragraph(origin_warning(origins))
    yield f"{disclaimer(study.card, attribution)}\n"
    if origins:
        yield _paragraph("""
            Runs that were made by others, and what summaries have of them, come from these sources; `manifest.json`
            says which experiments they are of. Cite the sources too.
        """)
        yield f"{origin_notes(study.card, origins)}\n"


def _references(study: Study) -> Iterator[str]:
    if study.card.references:
        yield "## References\n"
        yield "\n".join(f"- {one}" for one in study.card.references) + "\n"


# --- description --------------------------------------------------------------------------------------------------


def _description(study: Study, directories: list[ManifestDirectory]) -> Iterator[str]:
    runs = max((one.rows for one in directories if one.frame == "runs" or one.frame in study.formats), default=0)
    experiments = max((one.experiments for one in directories), default=0)
    sweeps = sorted({one.sweep for one in directories if one.sweep})
    yield _paragraph(study.card.description)
    held = counted(experiments, "experiment") + (f" and {counted(runs, 'run')}" if runs else "")
    of = f" of the {'sweeps' if len(sweeps) > 1 else 'sweep'} {', '.join(sweeps)}"
    chosen = f"experiments{of}" if sweeps else "all experiments of a study, or those that meet conditions"
    yield _paragraph(f"The largest directory holds {held}. The directories hold {chosen}. What was swept:")
    yield "| parameter | values |\n|---|---|"
    for key in _parameters(directories):
        values = _united([one.values[key] for one in directories if key in one.values])
        yield f"| `{key}` | {_values_text(values)} |"
    yield ""
    if study.card.uses:
        yield _paragraph(study.card.uses)


def _parameters(directories: list[ManifestDirectory]) -> list[str]:
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


def _structure(study: Study, directories: list[ManifestDirectory], files: list[ManifestFile]) -> Iterator[str]:
    archives = {file.path: file for file in files if file.path.endswith(".tar")}
    yield "| directory | holds | experiments | rows | files | size |\n|---|---|---|---|---|---|"
    for one in directories:
        counts = " | ".join(map(_count, (one.experiments, one.rows, one.files)))
        yield f"| `{one.name}/` | {_holds(study, one)} | {counts} | {_size(one.bytes)} |"
        archive = archives.get(f"{one.name}.tar")
        if archive is not None:
            yield f"| `{archive.path}` | an archive of `{one.name}/` | | | | {_size(archive.bytes)} |"
    yield from _layout(study, directories, files)
    yield _paragraph("""
        `manifest.json` lists every file with its size, rows and SHA-256. `croissant.json` describes the data for
        machines (Croissant). `CITATION.cff` and `LICENSE` say how to cite and to use them.
    """)


def _layout(study: Study, directories: list[ManifestDirectory], files: list[ManifestFile]) -> Iterator[str]:
    yield ""
    parquet = _of_frames(directories)
    if not parquet and directories:
        return
    keys = _spelled(len(study.keys), "key")
    which = "Each directory" if len(parquet) == len(directories) else f"Of these, {_listed(d.name for d in parquet)}"
    yield f"{which} is a Parquet data set, partitioned by {keys}. One of the files:\n"
    yield f"```text\n{next((file.path for file in files if file.path.endswith('.parquet')), '')}\n```\n"
    yield _paragraph("""
        The keys are in the path and not in the files. Null is `__HIVE_DEFAULT_PARTITION__`; numbers are written as the
        shortest decimal. `_common_metadata` in each directory is its schema, keys included. An experiment has the same
        `experiment_id` everywhere, and it never spans partitions.
    """)


def _of_frames(directories: list[ManifestDirectory]) -> list[ManifestDirectory]:
    """Return the directories of Parquet files: the others are in a format of the study's."""
    return [one for one in directories if one.frame in _FRAMES]


def _holds(study: Study, one: ManifestDirectory) -> str:
    of = f" of the {one.sweep} sweep" if one.sweep else ""
    where = f", where {' and '.join(f'`{condition}`' for condition in one.where)}" if one.where else ""
    runs = _FRAMES.get(one.frame) or _formatted(study.formats[one.frame])
    return f"{runs}{of}{where}"


def _formatted(form: Format) -> str:
    return f"training runs, a {form.noun} each" if form.file is None else f"training runs, many a {form.noun}"


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


def _formats(study: Study, directories: list[ManifestDirectory]) -> Iterator[str]:
    for name in sorted({one.frame for one in directories if one.frame in study.formats}):
        where = _listed(f"{one.name}/" for one in directories if one.frame == name)
        yield _paragraph(f"{study.formats[name].note} Such files are in {where}.")


def _format(study: Study, directories: list[ManifestDirectory]) -> Iterator[str]:
    if directories and not _of_frames(directories):
        return
    frames = {one.frame for one in directories}
    yield _paragraph(f"""
        {study.card.lists or elements_text(study.points)} Averages, deviations, minima and maxima are over finite
        values; quantiles rank values that are not finite above all others. All directories of a kind have one schema.
    """)
    if frames & {"summary", "executive"}:
        yield "### Experiment Summary Schema\n"
        yield from _table(study, study.summary)
        yield ""
    if "executive" in frames:
        yield _paragraph(_executive_text(study))
    if "precision" in frames:
        yield "### Precision Schema\n"
        yield _paragraph("""
            A row an experiment and confidence level. Intervals for medians hold for every distribution of runs: they
            reach from one order statistic to another, or between two. Those for means are Student's and the
            percentile bootstrap's, which for few and skewed values cover less than their level. Where a column is null,
            there were fewer runs than such an interval takes; NaN is no bound, among values that are not finite.
        """)
        yield from _table(study, study.precision)
        yield ""
    if "runs" in frames:
        yield "### Run Schema\n"
        yield from _table(study, study.runs)
        yield ""


def elements_text(points: Points) -> str:
    """Return what the elements of lists are, of a study that says no more of it."""
    text = f"Histories, and the statistics of them, have one element for each {points.name}"
    if points.column:
        return f"{text}; the column `{points.column}` says which these are."
    if (points.first, points.step) == (1, 1):
        return f"{text}; the first element is the first {points.name}."
    return f"{text}: the first is of {points.name} {points.first:g}, and each of the next by {points.step:g} more."


def _executive_text(study: Study) -> str:
    lists = _executive_lists(study)
    others = {field.name for field in study.summary if not pa.types.is_list(field.type)}
    if not others <= set(study.executive.names):
        return f"The executive summary has only some of these columns: {_listed(study.executive.names)}."
    some = f": of those, only {_listed(lists)}" if lists else ""
    return f"The executive summary has the same columns but for the lists{some}."


def _executive_lists(study: Study) -> list[str]:
    """Return the list columns of the executive summary, quantiles of a series ascending, whenever they were added."""
    series = {history: place for place, history in enumerate(study.reduction.histories.values())}

    def place(name: str) -> tuple[int, float]:
        if name not in study.reduction.lists:
            return -1, 0.0
        history, statistic = study.reduction.lists[name]
        return series.get(history, -1), statistic.rule if isinstance(statistic.rule, float) else 0.0

    return sorted((field.name for field in study.executive if pa.types.is_list(field.type)), key=place)


def _listed(names: Iterable[str]) -> str:
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def _table(study: Study, schema: pa.Schema) -> Iterator[str]:
    yield "| column | type | meaning |\n|---|---|---|"
    for field in schema:
        key = "; a partition key" if field.name in study.keys else ""
        yield f"| `{field.name}` | {spelled_type(field.type)} | {study.columns[field.name].note}{key} |"


# --- code ---------------------------------------------------------------------------------------------------------


def _examples(study: Study, directories: list[ManifestDirectory]) -> Iterator[str]:
    parquet = _of_frames(directories)
    if directories and not parquet:
        return
    yield "## Code Examples\n"
    yield "Each reads a directory as `frame`, with the right types, from the folder that this file is in.\n"
    yield _paragraph(f"""
        Say what the partition keys are, as these do. {_guesses_text(study.key_schema)} With the package `butter_etl`,
        `butter_etl.read_export(directory)` is a Dask dataframe with all of this seen to. The examples in Python are
        run by the tests of that package, the one in R is not.
    """)
    for one in parquet:
        if not one.files:
            continue  # readers refuse a pattern that matches nothing
        yield f"### `{one.name}`\n"
        for reader, (language, code) in recipes(study.key_schema, one.name).items():
            yield f"{reader}:\n\n```{language}\n{code}```\n"


def _guesses_text(keys: pa.Schema) -> str:
    """Return what goes wrong where the types of keys are not said."""
    fail = "pyarrow and pandas fail where a key is null in all paths."
    single = [field.name for field in keys if pa.types.is_float32(field.type)]
    if not single:
        return f"Left to guess, {fail}"
    which = f"The keys {_listed(single)}" if pa.float64() in keys.types else "The keys"
    return f"""
        Left to guess, DuckDB takes `{single[0]}=0.0001` for text, Polars for a float64 and pandas for a category, and
        {fail} {which} are float32: compare them with a float32, or with a range.
    """


def _spelled(number: int, noun: str) -> str:
    """Return a number with its noun, small ones in words: ``one key``, ``eight keys``."""
    digits, _, noun = counted(number, noun).partition(" ")
    return f"{_WORDS[number] if number < len(_WORDS) else digits} {noun}"


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"

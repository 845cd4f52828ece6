"""The contestants of `benchmarks.summaries`: this package, and what people would write otherwise.

Each brings the summaries of a partition from run files to a summary file: all statistics of the summary frame, the same
Parquet settings. The peers take two liberties that this package may not: they expect that all runs of an experiment are
equally long, and that all values are finite. `IMPORTS` says what each needs; what is not installed is left out.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.clusters.start import start_cluster
from butter_etl.store.layout import RunFile
from butter_etl.store.parquet import parquet_options
from butter_etl.store.store import Store
from butter_etl.store.summaries import ROWS_A_GROUP, summary_name
from butter_etl.studies.butter.columns import REDUCTION
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.frames import RUNS
from butter_etl.summarize import input_columns, plan_summaries, run_summaries, summarize_partition

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import pandas as pd
    from numpy.typing import NDArray

#: What computes the statistics of each column of a matrix (runs, epochs), by name.
Block: TypeAlias = "Callable[[NDArray[Any]], dict[str, NDArray[Any]]]"

INPUT_HISTORIES = [name for name in BUTTER.histories if name in BUTTER.reduction.histories.values()]
PARAMETERS = [name for name in input_columns(BUTTER) if name not in INPUT_HISTORIES]
#: The settings with which all peers write.
_OPTIONS = parquet_options(BUTTER.summary_files, BUTTER.encodings)
QUARTILES = {"q1": 0.25, "median": 0.5, "q3": 0.75}
#: The list columns of a summary file as (series, statistic); `num` belongs to no series.
LISTS = {
    field.name: next(
        (one, field.name.removeprefix(f"{one}_"))
        for one in BUTTER.reduction.histories
        if field.name.startswith(f"{one}_")
    )
    for field in BUTTER.summary_files
    if pa.types.is_list(field.type) and field.name not in ("num", "widths")
}
#: The extremum blocks: the history that each is of, and whether its largest entry is the best.
EXTREMUM_OF = {one.name: (one.history, one.best == "max") for one in REDUCTION.extrema}


class Partition:
    """The files of one partition, and where a contestant leaves its summary file."""

    def __init__(self, store: Store, name: str, files: Iterable[RunFile], target: Path) -> None:
        by_experiment: dict[int, list[str]] = {}
        for file in files:
            by_experiment.setdefault(file.experiment_id, []).append(store.location.path(f"{RUNS}/{file.path}"))
        self.name = name
        #: The run files of each experiment, in the order of the ids.
        self.experiments = dict(sorted(by_experiment.items()))
        self.target = target

    @property
    def paths(self) -> list[str]:
        """All run files."""
        return [path for paths in self.experiments.values() for path in paths]

    def write(self, statistics: pa.Table) -> None:
        """Write rows of statistics, in the order of the experiments, beside the parameters of each experiment."""
        parameters = pa.concat_tables(
            [pq.ParquetFile(paths[0]).read(columns=PARAMETERS).slice(0, 1) for paths in self.experiments.values()]
        )
        known = set(statistics.column_names)
        columns = [
            (statistics if field.name in known else parameters)[field.name].cast(field.type)
            for field in BUTTER.summary_files
        ]
        table = pa.table(columns, schema=BUTTER.summary_files).combine_chunks()
        with pq.ParquetWriter(self.target, BUTTER.summary_files, **_OPTIONS) as writer:
            writer.write_table(table, row_group_size=ROWS_A_GROUP)


def partitions(store: Store, folder: Path) -> list[Partition]:
    """Every partition of a store; their summary files will lie in ``folder``."""
    grouped = groupby(store.run_files(), key=lambda file: file.partition)
    return [Partition(store, name, files, folder / f"{number}.parquet") for number, (name, files) in enumerate(grouped)]


def _each(function: Callable[[Partition], None], parts: list[Partition], cores: int) -> None:
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(function, parts))


# --- this package, and the floor ---------------------------------------------------------------------------------


class Ours:
    """`butter-etl summarize --full`, planning included, without starting the program."""

    def __init__(self, store: Store, parts: list[Partition], cores: int) -> None:
        self._store, self._cores = store, cores
        del parts

    def run(self) -> None:
        """Summarise the store anew."""
        run_summaries(plan_summaries(self._store, full=True), self._store, threads=self._cores)


class Workers:
    """`Ours` with a process for each core, started before."""

    def __init__(self, store: Store, parts: list[Partition], cores: int) -> None:
        self._store, self._stack = store, ExitStack()
        self._client = self._stack.enter_context(start_cluster(workers=cores, threads_per_worker=1))
        del parts

    def run(self) -> None:
        """Summarise the store anew."""
        run_summaries(plan_summaries(self._store, full=True), self._store, self._client)

    def close(self) -> None:
        """End the processes."""
        self._stack.close()


class Bare:
    """`Ours` as a process for each core, with nothing between them: each has every so-manieth partition, and a pipe."""

    def __init__(self, store: Store, parts: list[Partition], cores: int) -> None:
        del parts
        spawn = multiprocessing.get_context("spawn")
        self._pipes = []
        for share in range(cores):
            here, there = spawn.Pipe()
            what = (there, store.location.absolute, share, cores)
            spawn.Process(target=_serve, args=what, daemon=True).start()
            self._pipes.append(here)

    def run(self) -> None:
        """Summarise the store anew."""
        for pipe in self._pipes:
            pipe.send(True)
        for pipe in self._pipes:
            pipe.recv()

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(False)


def _serve(pipe: Connection, path: str, share: int, shares: int) -> None:
    """Summarise a share of a store's partitions as often as it is asked for."""
    store = Store.open(path)
    while pipe.recv():
        for plan in plan_summaries(store, full=True).partitions[share::shares]:
            summarize_partition(store, plan, readers=0)
        pipe.send(None)


class Floor:
    """What no way of summarising can go below: decode the needed columns, encode the result, compute nothing.

    What is encoded are the row groups of the summary files that this package wrote before.
    """

    def __init__(self, store: Store, parts: list[Partition], cores: int) -> None:
        self._parts, self._cores = parts, cores
        self._results = {}
        for part in parts:
            with store.location.parquet_file(summary_name(part.name)) as file:
                self._results[part.name] = [file.read_row_group(group) for group in range(file.num_row_groups)]

    def run(self) -> None:
        """Decode and encode every partition."""
        _each(self._copy, self._parts, self._cores)

    def _copy(self, part: Partition) -> None:
        for path in part.paths:
            with pq.ParquetFile(path) as file:
                file.read(columns=list(input_columns(BUTTER)), use_threads=False)
        with pq.ParquetWriter(part.target, BUTTER.summary_files, **_OPTIONS) as writer:
            for table in self._results[part.name]:
                writer.write_table(table)


# --- NumPy -------------------------------------------------------------------------------------------------------


def _matrices(paths: list[str]) -> dict[str, NDArray[np.float32]]:
    """The histories of an experiment as matrices of shape (runs, epochs)."""
    table = pa.concat_tables([pq.ParquetFile(path).read(columns=list(INPUT_HISTORIES)) for path in paths])
    flat = {name: table[name].combine_chunks() for name in INPUT_HISTORIES}
    return {name: column.flatten().to_numpy().reshape(len(column), -1) for name, column in flat.items()}


def _best(matrix: NDArray[np.float32], *, largest: bool) -> dict[str, NDArray[np.floating[Any]]]:
    """Epoch and value of each run's best entry."""
    at = matrix.argmax(axis=1) if largest else matrix.argmin(axis=1)
    return {"epoch": at + 1.0, "value": matrix[np.arange(len(matrix)), at]}


def _numpy_block(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The statistics of each column of ``values``, by NumPy's own functions."""
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    return {
        "num_finite": np.isfinite(values).sum(axis=0),
        "avg": values.mean(axis=0, dtype=np.float64),
        "stddev": values.std(axis=0, ddof=1, dtype=np.float64),
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "q1": q1,
        "median": median,
        "q3": q3,
    }


def _nan_block(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The same by the functions that NumPy has for data in which values are missing."""
    finite = np.where(np.isfinite(values), values, np.nan)
    q1, median, q3 = np.nanquantile(finite, [0.25, 0.5, 0.75], axis=0)
    return {
        "num_finite": np.isfinite(values).sum(axis=0),
        "avg": np.nanmean(finite, axis=0, dtype=np.float64),
        "stddev": np.nanstd(finite, axis=0, ddof=1, dtype=np.float64),
        "min": np.nanmin(finite, axis=0),
        "max": np.nanmax(finite, axis=0),
        "q1": q1,
        "median": median,
        "q3": q3,
    }


class Numpy:
    """A matrix for each history of each experiment, and a call for each statistic; threads over the partitions."""

    block = staticmethod(_numpy_block)

    def __init__(self, store: Store, parts: list[Partition], cores: int) -> None:
        self._parts, self._cores = parts, cores
        del store

    def run(self) -> None:
        """Summarise every partition."""
        _each(self._summarize, self._parts, self._cores)

    def _summarize(self, part: Partition) -> None:
        part.write(
            pa.Table.from_pylist([numpy_row(_matrices(paths), self.block) for paths in part.experiments.values()])
        )


class NumpyNan(Numpy):
    """Likewise, by functions that would stand values that are not finite."""

    block = staticmethod(_nan_block)


def numpy_row(matrices: Mapping[str, NDArray[Any]], block_of: Block) -> dict[str, Any]:
    """The summary row of an experiment's histories (runs, epochs)."""
    blocks = {series: block_of(matrices[history]) for series, history in BUTTER.reduction.histories.items()}
    row: dict[str, Any] = {name: blocks[series][statistic] for name, (series, statistic) in LISTS.items()}
    row["num_runs"], epochs = matrices["val_loss"].shape
    row["num"] = np.full(epochs, row["num_runs"])
    for name, (history, largest) in EXTREMUM_OF.items():
        for part, values in _best(matrices[history], largest=largest).items():
            block = block_of(values[:, None])
            row |= {f"{name}_{part}_{one}": block[one].item() for one in ("min", "q1", "median", "q3", "max", "avg")}
    return row


# --- pandas and Dask ---------------------------------------------------------------------------------------------


def _long_frame(paths: list[str]) -> pd.DataFrame:
    """A row an entry: run, epoch, and the histories."""
    import pandas as pd

    matrices = _matrices(paths)
    runs, epochs = matrices["val_loss"].shape
    frame = pd.DataFrame({name: matrix.ravel() for name, matrix in matrices.items()})
    frame["run"], frame["epoch"] = np.repeat(np.arange(runs), epochs), np.tile(np.arange(1, epochs + 1), runs)
    return frame


def _pandas_row(frame: pd.DataFrame) -> dict[str, Any]:
    """The summary row of an experiment's long frame."""
    series_of = {history: series for series, history in BUTTER.reduction.histories.items()}
    histories = list(series_of)
    by_epoch = frame.groupby("epoch")[histories]
    blocks = {"avg": by_epoch.mean(), "stddev": by_epoch.std(), "min": by_epoch.min(), "max": by_epoch.max()}
    blocks["num_finite"] = by_epoch.count()
    blocks |= {name: by_epoch.quantile(q) for name, q in QUARTILES.items()}
    row: dict[str, Any] = {
        name: blocks[statistic][BUTTER.reduction.histories[series]].to_numpy()
        for name, (series, statistic) in LISTS.items()
    }
    row["num"] = frame.groupby("epoch").size().to_numpy()
    row["num_runs"] = frame["run"].nunique()
    by_run = frame.groupby("run")
    for name, (history, largest) in EXTREMUM_OF.items():
        at = by_run[history].idxmax() if largest else by_run[history].idxmin()
        for part, column in (("epoch", "epoch"), ("value", history)):
            values = frame.loc[at, column].astype("float64")
            found = {"min": values.min(), "max": values.max(), "avg": values.mean()}
            found |= {quartile: values.quantile(q) for quartile, q in QUARTILES.items()}
            row |= {f"{name}_{part}_{statistic}": value for statistic, value in found.items()}
    return row


class Pandas:
    """A long frame of each experiment, grouped by epoch; threads over the partitions."""

    def __init__(self, store: Store, parts: list[Partition], cores: int) -> None:
        self._parts, self._cores = parts, cores
        del store

    def run(self) -> None:
        """Summarise every partition."""
        _each(self._summarize, self._parts, self._cores)

    def _summarize(self, part: Partition) -> None:
        part.write(pa.Table.from_pylist([_pandas_row(_long_frame(paths)) for paths in part.experiments.values()]))


class Dask:
    """A Dask dataframe of long frames, one partition an experiment's file, grouped by experiment and applied to.

    Dask's own aggregations have no quartiles, so the groups are gathered by a shuffle. Threads of this process.
    """

    def __init__(self, store: Store, parts: list[Partition], cores: int) -> None:
        import dask.dataframe as dd

        self._parts, self._cores = parts, cores
        self._from_map: Any = dd.from_map
        del store

    def run(self) -> None:
        """Summarise every partition."""
        import dask
        import pandas as pd

        with dask.config.set({"dataframe.shuffle.method": "tasks", "scheduler": "threads", "num_workers": self._cores}):
            for part in self._parts:
                sources = [(number, path) for number, paths in part.experiments.items() for path in paths]
                meta = _dask_frame((0, part.paths[0])).iloc[:0]
                frame = self._from_map(_dask_frame, sources, meta=meta)
                rows = frame.groupby("experiment_id").apply(
                    lambda one: pd.Series({"row": _pandas_row(one)}),
                    meta=pd.DataFrame({"row": pd.Series(dtype=object)}),
                )
                part.write(pa.Table.from_pylist(rows.compute()["row"].sort_index().tolist()))


def _dask_frame(source: tuple[int, str]) -> pd.DataFrame:
    number, path = source
    frame = _long_frame([path])
    first = int(Path(path).stem.split("-")[1])
    return frame.assign(experiment_id=number, run=frame["run"] + first).reset_index(drop=True)


# --- Polars ------------------------------------------------------------------------------------------------------


class Polars:
    """One lazy query a partition: explode the lists, group by experiment and epoch, gather the lists again."""

    def __init__(self, store: Store, parts: list[Partition], cores: int) -> None:
        import polars as pl

        self._parts, self._polars = parts, pl
        del store, cores  # POLARS_MAX_THREADS says it

    def run(self) -> None:
        """Summarise every partition."""
        for part in self._parts:
            part.write(self._statistics(part))

    def _statistics(self, part: Partition) -> pa.Table:
        pl = self._polars
        runs = pl.scan_parquet(part.paths).select("experiment_id", "repetition", *INPUT_HISTORIES)
        epoch = pl.int_ranges(1, pl.col("val_loss").list.len() + 1)
        by_epoch = (
            runs.with_columns(epoch=epoch)
            .explode(*INPUT_HISTORIES, "epoch")
            .group_by("experiment_id", "epoch")
            .agg(pl.len().alias("num"), *_list_columns(self._aggregate))
        )
        lists = by_epoch.sort("experiment_id", "epoch").drop("epoch").group_by("experiment_id").agg(pl.all())
        best = runs.select("experiment_id", *self._best_entries()).group_by("experiment_id")
        blocks = best.agg(pl.len().alias("num_runs"), *self._extremum_columns())
        joined = lists.join(blocks, on="experiment_id").sort("experiment_id")
        # `LISTS` in the order of the schema; Polars' large lists are cast when they are written.
        return joined.collect().drop("experiment_id").to_arrow()

    def _aggregate(self, series: str, statistic: str) -> Any:
        column = self._polars.col(BUTTER.reduction.histories[series])
        if statistic in QUARTILES:
            return column.quantile(QUARTILES[statistic], interpolation="linear")
        functions = {"avg": "mean", "stddev": "std", "num_finite": "count"}
        return getattr(column, functions.get(statistic, statistic))()

    def _best_entries(self) -> Iterator[Any]:
        for name, (history, largest) in EXTREMUM_OF.items():
            values = self._polars.col(history).list
            at = values.arg_max() if largest else values.arg_min()
            yield (at + 1).cast(self._polars.Float64).alias(f"{name}_epoch")
            yield (values.max() if largest else values.min()).alias(f"{name}_value")

    def _extremum_columns(self) -> Iterator[Any]:
        for name in EXTREMUM_OF:
            for part in ("epoch", "value"):
                column = self._polars.col(f"{name}_{part}")
                found = {"min": column.min(), "max": column.max(), "avg": column.mean()}
                found |= {one: column.quantile(q, interpolation="linear") for one, q in QUARTILES.items()}
                yield from (value.alias(f"{name}_{part}_{one}") for one, value in found.items())


def _list_columns(aggregate: Callable[[str, str], Any]) -> Iterator[Any]:
    """An aggregation for each list column, under its name."""
    for name, (series, statistic) in LISTS.items():
        yield aggregate(series, statistic).alias(name)


# --- DuckDB ------------------------------------------------------------------------------------------------------


class DuckDB:
    """One query a partition: unnest the lists, group by experiment and epoch, gather the lists again."""

    def __init__(self, store: Store, parts: list[Partition], cores: int) -> None:
        import duckdb

        self._parts = parts
        self._connection: Any = duckdb.connect(config={"threads": cores})
        del store

    def run(self) -> None:
        """Summarise every partition."""
        for part in self._parts:
            result = self._connection.sql(_sql(part.paths)).to_arrow_table()
            part.write(result.drop_columns(["experiment_id"]))


def _sql(paths: list[str]) -> str:
    names = ", ".join(INPUT_HISTORIES)
    unnested = ", ".join(f"unnest({name}) as {name}" for name in INPUT_HISTORIES)
    functions = {"avg": "avg({})", "stddev": "stddev_samp({})", "min": "min({})", "max": "max({})"}
    functions |= {"num_finite": "count(*) filter (isfinite({}))"}
    # All three quartiles by one call: asked for one by one, DuckDB would collect the values three times.
    quartiles = [
        f"quantile_cont({history}, [0.25, 0.5, 0.75]) as {series}_quartiles"
        for series, history in BUTTER.reduction.histories.items()
    ]
    plain = [
        f"{functions[statistic].format(BUTTER.reduction.histories[series])} as {name}"
        for name, (series, statistic) in LISTS.items()
        if statistic in functions
    ]
    place = {name: number for number, name in enumerate(QUARTILES, 1)}
    gathered = [
        f"list({series}_quartiles[{place[statistic]}] order by epoch) as {name}"
        if statistic in QUARTILES
        else f"list({name} order by epoch) as {name}"
        for name, (series, statistic) in LISTS.items()
    ]
    best, blocks = [], []
    for name, (history, largest) in EXTREMUM_OF.items():
        extreme = f"list_{'max' if largest else 'min'}({history})"
        best += [f"list_position({history}, {extreme}) as {name}_epoch", f"{extreme} as {name}_value"]
        for part in (f"{name}_epoch", f"{name}_value"):
            blocks += [f"{one}({part}) as {part}_{one}" for one in ("min", "max", "avg")]
            blocks += [f"quantile_cont({part}, {q}) as {part}_{one}" for one, q in QUARTILES.items()]
    return f"""
        with runs as (select experiment_id, {names} from read_parquet({paths})),
        entries as (
            select experiment_id, generate_subscripts(val_loss, 1) as epoch, {unnested} from runs
        ),
        epochs as (
            select experiment_id, epoch, count(*) as num, {", ".join(plain + quartiles)} from entries group by all
        ),
        lists as (
            select experiment_id, list(num order by epoch) as num, {", ".join(gathered)} from epochs group by all
        ),
        best as (select experiment_id, {", ".join(best)} from runs),
        blocks as (select experiment_id, count(*) as num_runs, {", ".join(blocks)} from best group by all)
        select * from lists join blocks using (experiment_id) order by experiment_id
    """  # noqa: S608 (names of columns, and paths of our own)


#: Those that are no peers, whose values need no check.
OURS = ("ours", "workers", "bare", "floor")
#: Those that have processes, which must be ended; one core needs none.
PROCESSES = ("workers", "bare")

#: Every contestant by name.
CONTESTANTS: dict[str, Callable[[Store, list[Partition], int], Any]] = {
    "ours": Ours,
    "workers": Workers,
    "bare": Bare,
    "floor": Floor,
    "duckdb": DuckDB,
    "polars": Polars,
    "numpy": Numpy,
    "numpy_nan": NumpyNan,
    "pandas": Pandas,
    "dask": Dask,
}

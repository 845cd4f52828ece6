"""The program of a job: Dask's worker, started apart from the Dask settings that its user has on the node."""

from butter_etl.clusters.dask_settings import apart_from_users


def main() -> None:
    """Run Dask's worker with the arguments of this process."""
    with apart_from_users():
        from distributed.cli.dask_worker import main as run_worker

        run_worker(prog_name="butter-etl worker")


if __name__ == "__main__":
    main()

"""What a store holds, condensed for people."""

from __future__ import annotations

from butter_etl.frames import read_summary


def best_losses(store: str) -> list[tuple[str, int, int, str, str]]:
    """A row a data set of a store's summaries: experiments, runs, lowest median test loss of any epoch, and whose."""
    columns = ["dataset", "shape", "size", "depth", "num_runs", "test_loss_median"]
    frame = read_summary(store, columns=columns).compute(scheduler="synchronous")
    frame["best"] = [min(losses) for losses in frame["test_loss_median"]]
    rows = []
    for name, group in frame.groupby("dataset"):
        best = group.loc[group["best"].idxmin()]
        network = f"{best['shape']} {best['size']}, depth {best['depth']}"
        rows.append((str(name), len(group), int(group["num_runs"].sum()), f"{best['best']:.4f}", network))
    return rows

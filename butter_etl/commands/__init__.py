"""The subcommands of ``butter-etl``, a module a group; each registers nothing, `butter_etl.cli` gathers them."""

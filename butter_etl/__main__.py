"""``python -m butter_etl`` and the ``butter-etl`` command."""

from butter_etl.cli import main

if __name__ == "__main__":
    main()

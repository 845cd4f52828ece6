"""Train fully connected networks over hyperparameter sweeps with Dask, and publish their curves as Parquet.

The public names are those of `__init__.pyi`. Each is imported where it is first used, so that importing the package
costs nothing.
"""

import lazy_loader

__version__ = "1.0.0.dev0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Train fully connected networks over hyperparameter sweeps with Dask, and publish their curves as Parquet.

The public names are those of `__init__.pyi`. Each is imported where it is first used, so that importing the package
costs nothing. Two are called otherwise in their wings, where modules have these names.
"""

from typing import Any

import lazy_loader

__version__ = "1.0.0.dev0"
#: Names of the commands, and what their functions are called in the wings.
_RENAMED = {"plot": "draw_plot", "verify": "verify_data"}
_attribute, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [name for name in sorted([*_names, *_RENAMED]) if name not in _RENAMED.values()]


def __getattr__(name: str) -> Any:
    return _attribute(_RENAMED.get(name, name))


def __dir__() -> list[str]:
    return __all__.copy()

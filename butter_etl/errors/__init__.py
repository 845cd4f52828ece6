"""What is said to people: the named errors, and the words in which amounts are told.

The face of the wing: its names, each imported where it is first used, are those of `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The site, built by `make docs`. Its sources are the whole checkout, so links are the same there and on a forge."""

import os
import sys
from functools import partial
from pathlib import Path

from myst_nb.core.execute import direct

from butter_etl import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))
# Notebooks run `butter-etl`: the one of the interpreter that builds the site.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["TTY_COMPATIBLE"] = "0"  # kernels ask for colours otherwise
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a debugger in the kernel warns of frozen modules otherwise

project = "butter_etl"
author = "The butter_etl authors"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_pages", "example_report"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "cluster/README.md",
    "examples/*.md",
    "findings/README.md",
]
exclude_patterns = [".*", "build", "dist", "benchmarks", "butter_etl", "tests"]  # not even walked through

myst_heading_anchors = 4
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
# What a program writes comes in pieces. MyST-NB puts each on a line of its own, and has no setting to join them.
direct.single_nb_execution = partial(direct.single_nb_execution, coalesce_streams=True)

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
default_role = "code"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "butter_etl"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_extra_path = ["site"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False

"""The site, built by `make docs`. Its sources are the whole checkout, so links are the same there and on a forge."""

import os
import sys
from pathlib import Path

from butter_etl import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))
# Notebooks run `butter-etl`: the one of the interpreter that builds the site.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a debugger in the kernel warns of frozen modules otherwise

project = "butter_etl"
author = "The butter_etl authors"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_pages"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/decisions/*.md", "cluster/README.md", "examples/*.md"]
exclude_patterns = [".*", "build", "dist", "benchmarks", "butter_etl", "tests"]  # not even walked through

myst_heading_anchors = 4
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
default_role = "code"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "butter_etl"
html_extra_path = ["site"]
html_show_sourcelink = False
html_copy_source = False

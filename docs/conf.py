"""Sphinx configuration: ``make docs`` builds the pages into docs/_build/html, the gallery from examples/ with them."""

import sys
from pathlib import Path

import fastnn
from fastnn import functional

sys.path.insert(0, str(Path(__file__).parent))  # for _gallery, which sphinx-gallery calls by name

project = "fastnn"
author = "The fastnn developers"
copyright = author
version = release = fastnn.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build", "gallery/*.ipynb"]
templates_path = ["_templates"]
default_role = "py:obj"

html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_show_sourcelink = False

autodoc_typehints = "none"  # the docstrings say types, in words
autosummary_ignore_module_all = False
operations = [name for name in functional.__all__ if f"{name}_forward" in functional.__all__]
autosummary_context = {"differentiable": [f"fastnn.functional.{name}" for name in operations]}

numpydoc_show_class_members = False  # the class template lists methods with their text
numpydoc_validation_checks = {
    *("GL03", "GL06", "GL07", "GL08", "GL09", "GL10"),  # a docstring, known sections in their order, blank lines
    *("SS01", "SS03", "SS04", "SS06"),  # a summary of one line, with a period
    *("PR01", "PR02", "PR05", "PR09", "PR10"),  # the parameters that there are, all of them
    *("RT05", "SA02", "EX01"),  # an example
}
numpydoc_validation_exclude = {
    r"_(forward|backward)$",  # they stand on the page of their operation, which describes the parameters
    r"\.[A-Z]\w*\.\w+$",  # methods
    r"\.(Audit|DivergenceError|Evaluation|Event|Frozen|History|Match|Source)$",  # users only read them
}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\d\d_",
    "ignore_pattern": r"serve\.py",  # a server, and no lesson
    "within_subsection_order": "FileNameSortKey",
    "reset_argv": "_gallery.figure_folder",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

"""Sphinx settings. ``scripts/docs`` builds the pages; warnings are errors there, and nothing is fetched."""

from meshpeer import __version__

project = "meshpeer"
author = "The meshpeer contributors"
copyright = f"2026, {author}"
release = version = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "examples"]
nitpicky = True

html_theme = "furo"
html_title = f"meshpeer {release}"
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"

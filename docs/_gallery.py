"""What sphinx-gallery calls while it runs the examples."""

from pathlib import Path
from typing import Any


def figure_folder(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """The arguments of a script: it shall write its figure into the build folder, not among the examples."""
    folder = Path(gallery_conf["src_dir"], "_build", "figures")
    folder.mkdir(parents=True, exist_ok=True)
    return [str(folder)]

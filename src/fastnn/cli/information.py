"""``python -m fastnn info``."""

import importlib.metadata
import platform

from fastnn._config import show_config

__all__ = ["info"]

LIBRARIES = ("numpy", "scipy", "scikit-learn", "matplotlib", "tqdm")


def info() -> int:
    """Print the configuration of fastnn, then the versions of Python and of the libraries that it may use."""
    show_config()
    print(f"{'Python':<12}{platform.python_version()} on {platform.system()} {platform.machine()}")
    for library in LIBRARIES:
        try:
            version = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        print(f"{library:<12} {version}" if len(library) >= 12 else f"{library:<12}{version}")
    return 0

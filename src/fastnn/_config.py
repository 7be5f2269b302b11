"""Version, and what this build and machine are."""

from fastnn import _kernels, _threads

__all__ = ["__version__", "show_config"]
__version__ = "0.1.0"


def show_config() -> None:
    """Print version, ISA build in use and available, and threads.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.show_config()
    fastnn 0.1.0
    ISA build   ... (available: ...)
    threads     ...
    """
    print(f"fastnn {__version__}")
    print(f"ISA build   {_kernels.ISA} (available: {', '.join(_kernels.available())})")
    print(f"threads     {_threads.get_num_threads()} (team: {_kernels.team_kind()})")

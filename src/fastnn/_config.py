"""Version, and what this build and machine are."""

from fastnn import _kernels, _threads

__all__ = ["__version__", "show_config"]
__version__ = "0.1.0"


def show_config() -> None:
    """Print version, ISA build in use and available, OpenMP and threads.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.show_config()
    fastnn 0.1.0
    ISA build   ... (available: ...)
    OpenMP      ...
    threads     ...
    """
    print(f"fastnn {__version__}")
    print(f"ISA build   {_kernels.ISA} (available: {', '.join(_kernels.available())})")
    print(f"OpenMP      {'yes' if _kernels.has_openmp() else 'no'}")
    print(f"threads     {_threads.get_num_threads()}")

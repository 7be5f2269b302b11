"""``python -m fastnn``: see `fastnn.cli`."""

import sys

from fastnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

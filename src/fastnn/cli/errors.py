"""What the command line cannot do, as one sentence for the user."""

__all__ = ["Refusal"]


class Refusal(Exception):
    """Printed on stderr as it stands, without a traceback; the exit code is 2."""

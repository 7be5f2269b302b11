"""The command line, ``python -m fastnn``: options, data sources, networks, reports, commands. See `fastnn.cli.main`."""

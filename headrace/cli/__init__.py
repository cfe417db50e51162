"""The command line, `headrace`."""

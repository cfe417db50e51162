"""What this machine can run, and what it lacks: `python -m headrace_runner.doctor`."""

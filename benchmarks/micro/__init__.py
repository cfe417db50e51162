"""The hot route measured in operations, which are the same on every machine, instead of time.

`budgets` is the one table of what a request may cost; `tests/microbench` holds the code to it in the
ordinary test run. `make microbench` prints times as well.
"""

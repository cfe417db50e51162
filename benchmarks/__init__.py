"""headrace and its peers, side by side. Read by people; nothing here asserts a time.

`install` makes each peer's virtual environment, `run` starts one system at a time, checks its answers,
loads it and keeps figures as JSON, `report` writes docs/benchmarks.md from them.
"""

"""docs/benchmarks.md out of the records of a run."""

"""What runs inside the peers' environments. It must import without headrace and without `benchmarks`."""

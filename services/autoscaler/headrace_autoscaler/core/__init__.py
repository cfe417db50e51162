"""Pure decisions: how many (decider, policies), where (planner, allocator), who pays (ledger), who may (leases).

No I/O, no clock: `now` is an argument. The simulator and the live fleet drive the same code.
"""

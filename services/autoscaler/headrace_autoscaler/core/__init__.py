"""Pure decisions: how many (decider), where (planner), who pays (ledger), who may (leases).

No I/O, no clock: `now` is an argument. The simulator and the live fleet drive the same code.
"""

"""Open loop: requests leave at fixed times whatever the server does, and latency counts from those times.

h2load cannot do this: its `--rps` sends what has become due in bursts some ten milliseconds apart,
and its `--timing-script-file` sets each timer after the one before has fired, so that lateness adds
up. Here a request that could not leave in time has waited from the moment it was due, as a user would
have (no "coordinated omission").
"""

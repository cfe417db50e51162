"""Pure decisions of the runner: no grpc, no asyncio, no clock, no I/O."""

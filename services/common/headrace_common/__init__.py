"""What all services share: errors, identity, quantities, validation, logs, telemetry, the gRPC host."""

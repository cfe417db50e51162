"""Router <-> autoscaler, and what every process serves."""

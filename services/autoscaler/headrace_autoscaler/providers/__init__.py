"""Where runner processes come from."""

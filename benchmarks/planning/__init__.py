"""How long a planning tick takes, by the number of models."""

"""What is decided: which variants to make, whether one is good enough, which one to take."""

"""What the autoscaler does to a mesh under load: a step, and a neighbour who floods."""

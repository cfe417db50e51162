"""`headrace up`: runs the mesh on one machine, and leaves nothing behind."""

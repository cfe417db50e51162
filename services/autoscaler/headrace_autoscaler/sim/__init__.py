"""What a policy would have cost, and how long requests would have waited: discrete events on a virtual clock."""

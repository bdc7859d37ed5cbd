"""What pip brings: weights, the networks that they belong to, how their files are read."""

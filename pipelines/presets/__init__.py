"""Settings of five kinds of houses, each a file with its reasons."""

"""How work runs: Beam, blocks, the encoder of the night."""

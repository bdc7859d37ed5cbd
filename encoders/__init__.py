"""Turn a payload (text, pixels, waveform) into a vector, and vectors of several modalities into one space."""

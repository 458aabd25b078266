"""The contract: what words, gates, lengths and generators are, and how an array finds the kernels of its library."""

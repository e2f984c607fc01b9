"""Variable-order Markov models of symbol sequences: prediction by partial matching (PPM), and IDyOM's use of it."""

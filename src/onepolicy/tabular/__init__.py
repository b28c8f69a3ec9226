"""Floor 2: finite Markov decision processes, solved exactly or learnt from experience; numba and scipy, no torch."""

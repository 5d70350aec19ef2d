"""What only the bundled model needs: a file for each kind of problem, with its generator and its evaluation."""

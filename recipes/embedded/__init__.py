"""Recipe of the embedded checkpoint: downloads, training data, training, evaluation."""

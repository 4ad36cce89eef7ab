"""How the embedded checkpoint is made: parts, data, training, evaluation."""

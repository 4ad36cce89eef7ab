"""Views, logit lens, similarity and comparison of hidden states."""

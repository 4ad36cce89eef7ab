"""Views, logit lens, similarity and comparison of what stands at taps."""

"""Decoding, resampling, windows and the log-mel spectrogram."""

"""Audio files and arrays: decoding, resampling, windows, log-mel spectrograms, sources."""

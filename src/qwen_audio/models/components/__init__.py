"""What several families share: encoders, decoders, features, prompts."""

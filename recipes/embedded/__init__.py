"""How the checkpoint in `src/qwen_audio/embedded` is made: parts, data, training, evaluation."""

"""`python -m qwen_audio`: the same as `qwen-audio`."""

from __future__ import annotations

import sys

from qwen_audio.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

"""The playground: one page where you hear, ask and see. `qwen-audio play` opens it.

It calls the public Python API alone; the page in `page/` draws what that gives.
"""

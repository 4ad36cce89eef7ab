"""What every server of this package needs, and the HTTP API.

Request filter, bounded bodies and connections, and limits are plain functions and ASGI middleware,
without a web framework, and so are the engine and its queues.
"""

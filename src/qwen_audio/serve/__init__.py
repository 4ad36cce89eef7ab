"""What every server of this package needs: request filter, bounded bodies and connections, limits.

ASGI middleware and plain functions, without a web framework.
"""

"""TCP ports: free ones, and checks whether one is free or in use."""

import socket

from stream.errors import UsageError

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def require_free_port(host: str, port: int, *, what: str, setting: str) -> None:
    """Raise UsageError, naming `setting`, if `port` is not free. Port 0 is always accepted."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"{what} cannot listen on {host}:{port} ({reason}); set {setting} to a free port, "
                "or to 0 for any"
            ) from None


def listens(host: str, port: int) -> bool:
    """True if a server accepts connections on this port."""
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def reachable_host(host: str) -> str:
    """Return the address under which a server listening on `host` can be reached.

    >>> reachable_host("0.0.0.0"), reachable_host("10.0.0.7")
    ('127.0.0.1', '10.0.0.7')
    """
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound

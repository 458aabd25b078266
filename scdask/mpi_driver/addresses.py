"""The address at which a rank listens, so that the other ranks reach it."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from distributed.utils import get_ip

from ..errors import WorldError

if TYPE_CHECKING:
    from .group import Group

CONNECT_SECONDS = 10
BACKLOG = 4096  # ranks that connect at the same time


def address_here(
    group: Group, host: str | None, interface: str | None, one_host: bool, timeout: float | None = None
) -> str:
    """The address at which this rank is to listen, that of IPv6 in brackets; call it on all ranks.

    It is that of `host` or of the network interface, or else 127.0.0.1 where all ranks are on one host, and the
    address of the host to the outside where they are on several.

    Raises
    ------
    WorldError
        If there is no such interface or address on a host, or a rank cannot connect to rank 0 there, on every rank.
    """

    def choose() -> str:
        try:
            address = choose_address(host, interface, one_host)
        except WorldError as error:
            raise WorldError(f"{group}: {error}") from error
        loopback = False
        with suppress(ValueError):  # A name is looked up by who connects.
            loopback = ip_address(address).is_loopback
        if loopback and not one_host:
            raise WorldError(
                f"{group} has the address {address}, which other hosts cannot reach: choose a network with interface= "
                "or host="
            )
        return address

    address: str = group.make("a look at the addresses", choose)
    _check_that_all_reach(group, address, timeout)
    return f"[{address}]" if ":" in address else address


def choose_address(host: str | None, interface: str | None, one_host: bool) -> str:
    """The address of this host that is given by itself or by its network interface, or else the one to take.

    Raises
    ------
    WorldError
        If there is no such interface, or it has no IPv4 address.
    """
    import psutil

    if host is not None:
        return host
    if interface is None:
        return "127.0.0.1" if one_host else str(get_ip())
    there = [name for _, name in socket.if_nameindex()]
    if interface not in there:
        raise WorldError(f"there is no network interface {interface}, only {', '.join(there)}")
    found = [each.address for each in psutil.net_if_addrs().get(interface, ()) if each.family == socket.AF_INET]
    if not found:
        raise WorldError(f"the network interface {interface} has no IPv4 address")
    return str(found[0])


def interface_of(address: str) -> str:
    """The network interface of this host that has an address."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(each.family == socket.AF_INET and each.address == address for each in addresses):
            return str(name)
    raise WorldError(f"no network interface of {socket.gethostname()} has the address {address}")


def _check_that_all_reach(group: Group, address: str, timeout: float | None) -> None:
    """Raise a WorldError, on every rank, if a rank cannot connect to rank 0 at its address."""

    def listen() -> tuple[str, int, str]:
        try:
            family, *_, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
            server = socket.create_server(place[:2], family=family, backlog=BACKLOG)
        except (OSError, UnicodeError) as error:  # The latter is for names that are none.
            raise WorldError(f"{group}: nothing can listen at {address}: {error}") from error
        servers.append(server)
        return address, server.getsockname()[1], socket.gethostname()

    def connect() -> None:
        if group.rank:
            try:
                socket.create_connection((there, port), CONNECT_SECONDS).close()
            except OSError as error:
                raise WorldError(
                    f"{group} cannot reach rank 0 on {name} at {there} ({error}): choose another network with "
                    "interface= or host=; scdask mpi-check looks at them"
                ) from error

    servers: list[socket.socket] = []
    try:
        there, port, name = group.share("a look at the addresses", listen, timeout=timeout)
        group.meet("a look at the network", connect, timeout)
    finally:
        for server in servers:
            server.close()

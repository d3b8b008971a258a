"""The machine's network: loopback, and one device with the address that it is given. No DHCP, no IPv6.

By the ioctls of netdevice(7), which need no program: the root has none. There is no udev either, so that the
kernel's own name stays.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path

from tinboot.formats.halt import Refusal
from tinboot.formats.operatorinput import CONTAINERS, Network

CONTAINERS_MASK = "255.255.0.0"

DEVICE = "eth0"
LOOPBACK = "lo"

#: Where /etc/resolv.conf of the image leads.
RESOLVER = Path("/run/resolv.conf")

_SYSCTL = Path("/proc/sys/net")
_DEVICES = Path("/sys/class/net")

# include/uapi/linux/sockios.h, if.h, route.h
_SIOCADDRT = 0x890B
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C
_IFF_UP, _RTF_UP, _RTF_GATEWAY, _RTF_REJECT = 1, 1, 2, 0x200

#: struct ifreq: a name of 16 bytes and a union of 24, here an address or flags.
_IFREQ = struct.Struct("=16s24s")
_FLAGS = struct.Struct("=16sh22x")
#: struct sockaddr_in: family, port, address (in network order), padding.
_ADDRESS = struct.Struct("=HH4s8x")
#: struct rtentry on 64 bits: destination, gateway, mask; flags, metric, device, MTU, window, irtt.
_ROUTE = struct.Struct("@L16s16s16sHhLPhPLLH0L")

#: Documentation/networking/ip-sysctl.rst: what a neighbour could otherwise have the machine do.
SETTINGS = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/default/accept_redirects": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/conf/all/rp_filter": "1",
    "ipv4/conf/default/rp_filter": "1",
    "ipv4/conf/all/accept_source_route": "0",
    "ipv4/tcp_syncookies": "1",
}


def configure(network: Network | None) -> None:
    """Loopback alone, or with the device. Raises `Refusal` with network-missing or network-failed."""
    try:
        for name, value in SETTINGS.items():
            (_SYSCTL / name).write_text(value, "ascii")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            _up(control, LOOPBACK)
            # before a container's network is there, and when it is gone, its address is nobody's: by the
            # default route the proxy and the gateway would lead what they decrypted out of the machine
            fcntl.ioctl(control, _SIOCADDRT, unreachable(CONTAINERS, CONTAINERS_MASK))
            if network is not None:
                _device(control, network)
    except OSError as error:
        raise Refusal("network-failed", str(error)) from error


def resolver(network: Network) -> str:
    """resolv.conf(5)."""
    return "".join(f"nameserver {server}\n" for server in network.dns)


def _device(control: socket.socket, network: Network) -> None:
    if not (_DEVICES / DEVICE).exists():
        there = ", ".join(sorted(path.name for path in _DEVICES.iterdir())) or "none"
        raise Refusal("network-missing", f"there is no {DEVICE} among the network devices: {there}")
    for request, address in ((_SIOCSIFADDR, network.address), (_SIOCSIFNETMASK, network.netmask)):
        fcntl.ioctl(control, request, _IFREQ.pack(DEVICE.encode(), sockaddr(address)))
    _up(control, DEVICE)
    fcntl.ioctl(control, _SIOCADDRT, default_route(network.gateway))
    RESOLVER.write_text(resolver(network), "ascii")


def _up(control: socket.socket, device: str) -> None:
    request = fcntl.ioctl(control, _SIOCGIFFLAGS, _FLAGS.pack(device.encode(), 0))
    _, flags = _FLAGS.unpack(request)
    fcntl.ioctl(control, _SIOCSIFFLAGS, _FLAGS.pack(device.encode(), flags | _IFF_UP))


def sockaddr(address: str) -> bytes:
    """struct sockaddr_in of a dotted quad."""
    return _ADDRESS.pack(socket.AF_INET, 0, socket.inet_aton(address))


def default_route(gateway: str) -> bytes:
    """struct rtentry, of everything."""
    anywhere = sockaddr("0.0.0.0")  # noqa: S104 - a destination, nobody binds it
    flags = _RTF_UP | _RTF_GATEWAY
    return _ROUTE.pack(0, anywhere, sockaddr(gateway), anywhere, flags, 0, 0, 0, 0, 0, 0, 0, 0)


def unreachable(address: str, netmask: str) -> bytes:
    """struct rtentry, of a network to which no packet goes but by a longer route."""
    nowhere, flags = sockaddr("0.0.0.0"), _RTF_UP | _RTF_REJECT  # noqa: S104 - no gateway, nobody binds it
    return _ROUTE.pack(0, sockaddr(address), nowhere, sockaddr(netmask), flags, 0, 0, 0, 0, 0, 0, 0, 0)

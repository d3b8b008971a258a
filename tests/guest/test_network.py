"""The network: what goes to the kernel, by its headers, and in a network namespace where one can be had."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tinboot.formats.halt import Refusal
from tinboot.formats.operatorinput import DEFAULT_NETWORK, Network
from tinboot.guest import network

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h


def in_a_namespace(work: Callable[[], None]) -> None:
    """`work` in a process with a network of its own; what it raises is shown here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status, said = 0, ""
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                status = 77
            else:
                work()
        except BaseException:  # the child must not become a second pytest
            status, said = 1, traceback.format_exc()
        os.write(writer, said[-4000:].encode())
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 77:
        pytest.skip("this machine makes no network namespaces")
    assert status == 0, told


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/proc/sys/net and /sys/class/net made up below a folder, and resolv.conf in it."""
    for name in network.SETTINGS:
        (tmp_path / "sysctl" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sysctl" / name).write_text("?")
    (tmp_path / "devices/lo").mkdir(parents=True)
    monkeypatch.setattr(network, "_SYSCTL", tmp_path / "sysctl")
    monkeypatch.setattr(network, "_DEVICES", tmp_path / "devices")
    monkeypatch.setattr(network, "RESOLVER", tmp_path / "resolv.conf")
    return tmp_path


def test_structures() -> None:
    """struct sockaddr_in has 16 bytes, struct ifreq 40, struct rtentry 120 (include/uapi/linux, 64 bit)."""
    assert network.sockaddr("10.0.2.15") == struct.pack("=HH", socket.AF_INET, 0) + bytes(
        (10, 0, 2, 15)
    ) + bytes(8)
    route = network.default_route("10.0.2.2")
    assert len(route) == 120
    assert route[8:24] == route[40:56] == network.sockaddr("0.0.0.0")  # noqa: S104 - a destination
    assert route[24:40] == network.sockaddr("10.0.2.2")
    assert route[56:58] == struct.pack("=H", 0x0003)  # RTF_UP, RTF_GATEWAY
    assert not any(route[:8] + route[58:])
    assert network._IFREQ.size == network._FLAGS.size == 40


def test_loopback_alone(places: Path) -> None:
    def work() -> None:
        network.configure(None)
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), 5).close()

    in_a_namespace(work)
    assert (places / "sysctl/ipv6/conf/all/disable_ipv6").read_text() == "1"
    assert not (places / "resolv.conf").exists()


def test_containers_that_are_not_there_are_nobody_outside(places: Path) -> None:
    """A request that was decrypted must not leave the machine for want of a container."""

    def work() -> None:
        network.configure(None)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request in (network._SIOCSIFADDR, network._SIOCSIFNETMASK):  # lo stands in for eth0
                text = "192.0.2.7" if request == network._SIOCSIFADDR else "255.255.255.0"
                fcntl.ioctl(control, request, network._IFREQ.pack(b"lo", network.sockaddr(text)))
            fcntl.ioctl(control, network._SIOCADDRT, network.default_route("192.0.2.1"))
            control.connect(("198.51.100.1", 9))  # by the default route
        for address in ("10.89.0.2", "10.89.255.254"):
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
                pytest.raises(OSError, match="No route to host"),
            ):
                sender.connect((address, 8080))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:  # its network, once it is there
            for request, text in (
                (network._SIOCSIFADDR, "10.89.0.1"),
                (network._SIOCSIFNETMASK, "255.255.255.0"),
            ):
                fcntl.ioctl(control, request, network._IFREQ.pack(b"lo", network.sockaddr(text)))
            control.connect(("10.89.0.2", 8080))

    in_a_namespace(work)


def test_no_device(places: Path) -> None:
    def work() -> None:
        with pytest.raises(Refusal, match="network-missing: there is no eth0 among the network devices: lo"):
            network.configure(DEFAULT_NETWORK)

    in_a_namespace(work)


def test_a_device_that_takes_no_address(places: Path) -> None:
    (places / "devices/eth0").mkdir()

    def work() -> None:
        with pytest.raises(Refusal, match=r"network-failed: .*No such device"):
            network.configure(DEFAULT_NETWORK)

    in_a_namespace(work)


def test_a_kernel_without_the_settings(places: Path) -> None:
    (places / "sysctl/ipv4/tcp_syncookies").unlink()
    (places / "sysctl/ipv4/tcp_syncookies").mkdir()
    with pytest.raises(Refusal, match="network-failed"):
        network.configure(None)


def test_resolver() -> None:
    network_of = Network("192.0.2.7", 24, "192.0.2.1", ("192.0.2.53", "192.0.2.54"))
    assert network.resolver(network_of) == "nameserver 192.0.2.53\nnameserver 192.0.2.54\n"

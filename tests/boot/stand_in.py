"""Hooks of tests of the service: a workload without containers, and a look at what the root got.

Both leave a process behind that outlives the hand-over. The initrd's Python has no `socket`, but `_socket`.
"""

from __future__ import annotations

#: On port 8080. Answers with the request's head; a chunked body comes back piece by piece as it arrives;
#: GET /static/exit ends it.
WORKLOAD = r"""
import os, _socket

def run(state):
    if os.fork():
        return {}
    os.setsid()
    listener = _socket.socket()
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", 8080))
    listener.listen(128)
    import signal
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        descriptor, _ = listener._accept()
        peer = _socket.socket(fileno=descriptor)
        if os.fork() == 0:
            try:
                listener.close()
                serve(peer)
            finally:
                os._exit(0)
        peer.close()

def serve(peer):
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            part = peer.recv(65536)
            if not part:
                return
            data += part
        head, _, data = data.partition(b"\r\n\r\n")
        if head.startswith(b"GET /static/exit "):
            os.kill(os.getppid(), 9)
            return
        if b"\r\ntransfer-encoding: chunked" in head.lower():
            peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
            while not data.endswith(b"0\r\n\r\n"):
                part = peer.recv(65536)
                if not part:
                    return
                data = data[-4:] + part
                peer.sendall(part)
            data = b""
        else:
            answer = b"HTTP/1.1 200 OK\r\nServer: leak/1\r\nContent-Length: %d\r\n\r\n" % len(head)
            peer.sendall(answer + head)
"""

#: Says when port 443 opened and what was there by then, which ports are open, who the machine says it is, and
#: whether the word EVIL is in the environment of a process, in a file below /run, or the name of a unit.
LOOK = r"""
import os, time

def run(state):
    root = os.open("/proc/1", os.O_RDONLY)
    comm = os.open("/proc/1/comm", os.O_RDONLY)
    if os.fork():
        return {}
    os.setsid()
    while os.pread(comm, 64, 0) != b"systemd\n":
        time.sleep(0.1)
    os.fchdir(root)
    os.chroot("root")
    os.chdir("/")
    while 443 not in ports():
        time.sleep(0.05)
    before = [name for name in ("tinboot-report/report", "tinboot-identity/tls.pem") if there("/run/" + name)]
    console = os.open("/dev/console", os.O_WRONLY | os.O_NOCTTY)
    os.write(console, f"\nlate-open: {before}\n".encode())
    while not up():
        time.sleep(0.2)
    same = read("/etc/machine-id") == read("/run/tinboot/machine-id")
    host = read("/proc/sys/kernel/hostname").decode().strip()
    credentials = sorted(os.listdir("/run/credentials")) if there("/run/credentials") else []
    said = {"ports": sorted(ports()), "host": host, "id": same, "credentials": credentials, "evil": evil()}
    os.write(console, f"\nlate-look: {said!r}\n".encode())
    os._exit(0)

def up():
    return there("/sys/fs/cgroup/system.slice/tinboot-proxy.service")

def there(path):
    return os.path.exists(path)

def read(path):
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 20)
    except OSError:
        return b""
    finally:
        os.close(descriptor)

def ports():
    found = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in read("/proc/net/" + name).decode().splitlines()[1:]:
            fields = line.split()
            if name.startswith("udp") or fields[3] == "0A":
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found

def evil():
    found = []
    for folder, _, names in os.walk("/run"):
        for name in names:
            if "evil" in name or b"EVIL" in read(f"{folder}/{name}"):
                found.append(f"{folder}/{name}")
    for process in os.listdir("/proc"):
        if process.isdigit() and b"EVIL" in read(f"/proc/{process}/environ"):
            found.append(process)
    return found
"""

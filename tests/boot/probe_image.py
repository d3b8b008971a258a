"""An image whose one program tells what its container is like (qemu/stubs/probe.c), on a volume."""

from __future__ import annotations

from pathlib import Path

import compiled
from guest import Wrapped
from oci_layouts import Layout, folder, member, tar

from tinboot.builder import oci_wrap

PASSWD = b"root:x:0:0:root:/:/probe\napp:x:1000:1000::/:/probe\n"


def layout() -> tuple[Layout, str]:
    """The image, and its digest."""
    program = member("probe", data=compiled.probe().read_bytes(), mode=0o755)
    places = [folder(name) for name in ("dev", "etc", "models", "proc", "run", "srv", "sys", "tmp")]
    accounts = [member("etc/passwd", data=PASSWD), member("etc/group", data=b"root:x:0:\napp:x:1000:\n")]
    made = Layout()
    image = made.image(
        [tar(places), tar([*accounts, program])],
        config={"config": {"Entrypoint": ["/probe"], "Env": ["PATH=/"]}},
    )
    made.entry(image)
    return made, image.digest


def make(where: Path) -> Wrapped:
    """`where`: an empty folder."""
    source = oci_wrap.Source(layout()[0].write(where / "oci"), None, "localhost/probe", None)
    made = oci_wrap.wrap_image(source, where / "probe.mpk")
    return Wrapped(made.identity, made.identity, made.ref, where / "probe.mpk")

"""Prints every file that the initrd's Python opens for runner, hooks and formats: the list to ship.

    python3.13 -ISEB tests/hooks/closure.py REPOSITORY

Run it in the interpreter of the image's distribution. OpenSSL's and libyaml's extensions are blocked, as
they are absent there. Files of the repository come as paths in it, all others as absolute paths; what is
builtin or frozen in the interpreter needs no file, but for os.py, by which it finds its library.
"""

# ruff: noqa: PTH100, PTH118, PTH208 (pathlib is not in the initrd; imported here, it would be in the answer)

import os
import sys

BLOCKED = ("_hashlib", "_ssl", "_yaml")


def main(repository: str) -> None:
    sys.path += [os.path.join(repository, "initrd-hooks"), repository, "/usr/lib/python3/dist-packages"]
    for name in BLOCKED:
        sys.modules[name] = None  # type: ignore[assignment]  # what the import system takes for absent
    exercise(os.path.join(repository, "initrd-hooks"))
    files = {os.path.abspath(os.__file__)}
    for name, module in sys.modules.items():
        spec = getattr(module, "__spec__", None)
        if name != "__main__" and spec is not None and spec.has_location:
            files.add(os.path.abspath(spec.origin))
    for path in sorted(files):
        print(path.removeprefix(os.path.abspath(repository) + "/"))


def exercise(folder: str) -> None:
    """Imports all, and runs what imports late: codecs at the first open, YAML at the first document."""
    from stage import runner, worker  # noqa: F401 (runner is what /init imports)

    from tinboot.formats import config, halt

    for name in sorted(os.listdir(folder)):
        if name[0].isdigit():
            worker.load_hook(os.path.join(folder, name))
    worker.describe(ValueError("é"))
    for document in (b"cpus: 2\nmodels: [{name: a}]\n", b"a: &x [1.5, 'b', 2020-01-01]\nb: *x\n", b"\xff"):
        try:
            config.load(document)
        except halt.Refusal as refusal:
            halt.line(halt.Halt("closure", refusal.reason, refusal.detail))


if __name__ == "__main__":
    main(sys.argv[1])

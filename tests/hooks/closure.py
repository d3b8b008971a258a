"""Prints every file that the initrd's Python opens for runner, hooks and formats: what it must hold.

    python3.13 -ISEB tests/hooks/closure.py REPOSITORY [FOLDER OF PYYAML]

Run it in the interpreter of the image's distribution. As in the image, OpenSSL's and libyaml's extensions
are absent, and so is PyYAML's own __init__, which imports all of it. Files of the repository come as paths
in it, PyYAML's as paths beside it, others as absolute paths; what is builtin or frozen in the interpreter
needs no file, but for os.py, by which it finds its library.
"""

# ruff: noqa: PTH100, PTH118, PTH208 (pathlib is not in the initrd; imported here, it would be in the answer)

import os
import sys

ABSENT = ("_hashlib", "_ssl", "_yaml")


def main(repository: str, packages: str = "/usr/lib/python3/dist-packages") -> None:
    sys.path += [os.path.join(repository, "initrd-hooks"), repository]
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]  # what the import system takes for absent
    bare = type(sys)("yaml")
    bare.__path__ = [os.path.join(packages, "yaml")]
    sys.modules["yaml"] = bare
    exercise(os.path.join(repository, "initrd-hooks"))
    files = {os.path.abspath(os.__file__)}
    for name, module in sys.modules.items():
        spec = getattr(module, "__spec__", None)
        if name != "__main__" and spec is not None and spec.has_location:
            files.add(os.path.abspath(spec.origin))
    for path in sorted(files):
        print(path.removeprefix(packages + "/").removeprefix(os.path.abspath(repository) + "/"))


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
    main(*sys.argv[1:])

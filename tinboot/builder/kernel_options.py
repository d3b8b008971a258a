"""Options that a kernel must have for NVIDIA's driver to speak to a GPU in confidential-computing mode.

The driver does SPDM through the kernel's own cryptography and compiles to stubs where one of these is missing
("libspdm expects LKCA but found stubs"): open-gpu-kernel-modules, kernel-open/nvidia/internal_crypt_lib.h,
the condition that defines USE_LKCA. Such a driver loads, and no GPU ever answers.
"""

from __future__ import annotations

from collections.abc import Collection

from tinboot.formats.errors import Refused

#: Option -> the module that has it where it is not built in. "": a framework, which what uses it loads.
NEEDED = {
    "CRYPTO_AEAD": "",
    "CRYPTO_AKCIPHER": "",
    "CRYPTO_SKCIPHER": "",
    "CRYPTO_HASH": "",
    "CRYPTO_HMAC": "hmac",
    "CRYPTO_ECDH": "ecdh_generic",
    "CRYPTO_ECDSA": "ecdsa_generic",
    "CRYPTO_RSA": "rsa_generic",
    "CRYPTO_GCM": "gcm",
    "CRYPTO_SHA512": "sha512_generic",
    "X509_CERTIFICATE_PARSER": "x509_key_parser",
    "DRM": "",
}

#: What GCM asks for by name when it is used. Kernels differ in which of these are options; one that is a
#: module has to be loaded as well.
ASKED_FOR = {"CRYPTO_AES": "aes_generic", "CRYPTO_CTR": "ctr", "CRYPTO_GHASH": "ghash_generic"}


def problems(config: str, loaded: Collection[str]) -> list[str]:
    """What `config`, a kernel's, lacks. `loaded`: names of the modules that are loaded before the driver.

    A guest has no program that the kernel could ask for a module, so one that is not in `loaded` is absent.
    """
    values = dict(
        line.removeprefix("CONFIG_").split("=", 1)
        for line in config.splitlines()
        if line.startswith("CONFIG_") and "=" in line
    )
    found = []
    for option, module in (NEEDED | ASKED_FOR).items():
        value = values.get(option)
        if option in NEEDED and value not in ("y", "m"):
            found.append(f"CONFIG_{option} is not set")
        elif value == "m" and module and module not in loaded:
            found.append(f"CONFIG_{option} is the module {module}, which nothing loads before the driver")
    return found


def check(config: str, loaded: Collection[str]) -> None:
    """Raises `Refused` with all that is missing."""
    if found := problems(config, loaded):
        raise Refused(
            "NVIDIA's driver cannot use this kernel's cryptography:\n  " + "\n  ".join(found),
            "take a kernel that has the option, or list the module in mkosi.images/root/modules.ubuntu",
        )

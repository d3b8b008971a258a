"""NVIDIA's nv-local-gpu-verifier 2.7.3, asked about the evidence of one GPU: `child.py SITE`.

The job comes on standard input, the verdict leaves on descriptor 3; standard output and error are the
package's own and say nothing that counts. nv_verifier.py starts this confined and judges the verdict: here
nothing is decided, and no file of the package is changed. What would reach for the network or the driver is
replaced before it is called:

    NvmlHandler                         no driver: the failing path would ask it, though nothing depends on it
    fetch_rim_file                      RIMs of the job, by the id that the package makes from the evidence
    send_ocsp_request                   answers of the job, by serial number
    ocsp_certificate_chain_validation   for chains whose revocation the relying party checks: says nothing

Exit code 0: there is a verdict, whichever. Any other: there is none.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

VERDICT = 3  # the descriptor

ARCHITECTURES = {"HOPPER": 9, "BLACKWELL": 10}  # nvml.h: NVML_DEVICE_ARCH_*


def main(site: str) -> int:
    job = json.load(sys.stdin.buffer)
    sys.path.insert(0, site)
    from cryptography.x509 import ocsp  # noqa: PLC0415 - of the folder that was just named
    from OpenSSL import crypto  # noqa: PLC0415
    from verifier import cc_admin, config  # noqa: PLC0415
    from verifier.cc_admin_utils import CcAdminUtils  # noqa: PLC0415
    from verifier.nvml.gpu_cert_chains import GpuCertificateChains  # noqa: PLC0415

    asked: list[str] = []
    for name, file in (("device_root", "DEVICE_ROOT_CERT"), ("rim_root", "RIM_ROOT_CERT")):
        path = Path.cwd() / f"{name}.pem"
        path.write_text(job[name])
        setattr(config.BaseSettings, file, str(path))
    config.BaseSettings.ROOT_CERT_DIR = str(Path.cwd())

    class NoDriver:
        @staticmethod
        def is_cc_dev_mode() -> bool:
            return False

    class Evidence:
        """What the package asks a GPU; it looks at the attributes too, so there are no slots."""

        def get_gpu_architecture(self) -> int:
            return ARCHITECTURES[job["architecture"]]

        def get_uuid(self) -> str:
            return "GPU-0"

        def get_driver_version(self) -> str:
            return str(job["driver_version"])

        def get_vbios_version(self) -> str:
            return str(job["vbios_version"])

        def get_attestation_report(self) -> bytes:
            return base64.b64decode(job["report"])

        def get_attestation_cert_chain(self) -> list[Any]:
            chain = GpuCertificateChains.extract_cert_chain(base64.b64decode(job["certificates"]))[:-1]
            root = crypto.load_certificate(crypto.FILETYPE_PEM, job["device_root"].encode())
            return [*chain, root]

    def rim(identifier: str) -> str:
        asked.append(identifier)
        return str(job["rims"][identifier])

    def answer(request: bytes) -> object:
        serial = str(ocsp.load_der_ocsp_request(request).serial_number)
        return ocsp.load_der_ocsp_response(base64.b64decode(job["ocsp"][serial]))

    check = CcAdminUtils.ocsp_certificate_chain_validation

    def revocation(chain: list[Any], settings: object, mode: Any) -> tuple[bool, str, str | None, str | None]:
        if mode.name in job["revocation"]:
            found: tuple[bool, str, str | None, str | None] = check(chain, settings, mode)
            return found
        for at, certificate in enumerate(chain):  # the caller goes on with these
            chain[at] = certificate.to_cryptography()
        return True, "", None, None

    cc_admin.NvmlHandler = NoDriver
    CcAdminUtils.fetch_rim_file = staticmethod(rim)
    CcAdminUtils.send_ocsp_request = staticmethod(answer)
    CcAdminUtils.ocsp_certificate_chain_validation = staticmethod(revocation)

    options = {
        "verbose": False,
        "test_no_gpu": False,
        "driver_rim": None,
        "vbios_rim": None,
        "user_mode": True,
        "allow_hold_cert": False,
        "service_key": None,
        "nonce": job["nonce"],
        "rim_root_cert": None,
        "rim_service_url": None,
        "ocsp_url": None,
        "ocsp_nonce_disabled": True,
        "claims_version": "3.0",
    }
    result, token = cc_admin.attest(options, job["nonce"], [Evidence()])

    # The package calls nothing good whose revocation it was not told: what would it say if it had been?
    settings = config.GPU_ARCHITECTURE_MAP[ARCHITECTURES[job["architecture"]]]
    for mode, mark in (
        ("GPU_ATTESTATION", settings.mark_gpu_attestation_report_cert_ocsp_status),
        ("DRIVER_RIM_CERT", settings.mark_gpu_driver_rim_cert_ocsp_status),
        ("VBIOS_RIM_CERT", settings.mark_gpu_vbios_rim_cert_ocsp_status),
    ):
        if mode not in job["revocation"]:
            mark("good")
    verdict = {
        "result": result,
        "but_for_revocation": settings.check_status(),
        "token": token,
        "rims": asked,
    }
    with os.fdopen(VERDICT, "wb") as pipe:
        pipe.write(json.dumps(verdict).encode())
    return 0


if __name__ == "__main__":
    code = 1
    try:
        code = main(sys.argv[1])
    finally:
        sys.stdout.flush()
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)  # a thread that the package left behind ends here too

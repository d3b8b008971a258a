"""The ABI of /dev/sev-guest, as the guest calls it and as the stub in the harness answers it.

Linux 6.12, include/uapi/linux/sev-guest.h and Documentation/virt/coco/sev-guest.rst. Structures are packed as
the kernel's compiler lays them out on x86-64.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

DEVICE = "/dev/sev-guest"

#: _IOWR('S', n, struct snp_guest_request_ioctl)
GET_REPORT, GET_DERIVED_KEY, GET_EXT_REPORT = 0xC0205300, 0xC0205301, 0xC0205302

#: struct snp_guest_request_ioctl: message version, addresses of request and response, exitinfo2.
CALL = struct.Struct("<B7xQQQ")
MESSAGE_VERSION = 1

#: exitinfo2: the firmware's error below, the VMM's above. The kernel presets it; the VMM may not have run.
NOT_CALLED = 0xFF
VMM_INVALID_LENGTH, VMM_BUSY = 1, 2  # SNP_GUEST_VMM_ERR_*

#: struct snp_report_req: user data, VMPL.
REPORT_REQUEST = struct.Struct("<64sI28x")

#: struct snp_ext_report_req: the same, then address and length of the buffer for certificates.
EXTENDED_REQUEST = struct.Struct("<64sI28xQI4x")

#: struct snp_report_resp: 4000 bytes. In them, of the PSP's MSG_REPORT_RSP (56860, table 25): status, size,
#: 24 bytes reserved, the report.
RESPONSE_BYTES = 4000
RESPONSE = struct.Struct("<II24x")

#: The buffer for certificates: whole pages, at most these bytes (SEV_FW_BLOB_MAX_SIZE).
CERTIFICATES_LIMIT, PAGE = 16 << 10, 4096

USER_DATA_BYTES = 64


class ExitInfo(NamedTuple):
    """exitinfo2 taken apart: what the PSP said, and what the VMM said."""

    firmware: int
    vmm: int

    def __str__(self) -> str:
        return f"firmware error {self.firmware:#x}, VMM error {self.vmm:#x}"


def exit_info(value: int) -> ExitInfo:
    """Of the 64 bits that a call left behind."""
    return ExitInfo(value & 0xFFFFFFFF, value >> 32)

"""The processor and what its firmware switched on."""

from __future__ import annotations

from tinboot.host.machine import Finding, Machine, Status

#: family, first and last model (AMD's revision guides; Linux, arch/x86/kernel/cpu/amd.c). Bergamo and
#: Siena, 0xA0 to 0xAF, belong to the Genoa line.
_PRODUCTS = (
    (0x19, 0x00, 0x0F, "Milan"),
    (0x19, 0x10, 0x1F, "Genoa"),
    (0x19, 0xA0, 0xAF, "Genoa"),
    (0x1A, 0x00, 0x11, "Turin"),
)

#: Firmware that verifiers of such guests ask for today: API 1.55, build 21 (Tinfoil's published policy).
_FIRMWARE = ((1, 55), 21)

_BIOS = "in the BIOS enable SMEE, SEV-SNP and SNP memory coverage (RMP), and set an SEV-ES ASID limit above 1"


def cpu(machine: Machine) -> Finding:
    fields = _cpuinfo(machine)
    buy = "use a server with an EPYC 9004 (Genoa) or 9005 (Turin); EPYC 7003 (Milan) has SNP too, but weaker"
    if not fields:
        return Finding("cpu", Status.UNKNOWN, "/proc/cpuinfo tells nothing", "mount /proc")
    vendor, model_name = fields.get("vendor_id", "?"), fields.get("model name", "?")
    if vendor != "AuthenticAMD":
        return Finding("cpu", Status.MISSING, f"{vendor}, {model_name}", buy)
    if "hypervisor" in fields.get("flags", "").split():
        return Finding(
            "cpu", Status.MISSING, f"{model_name}, seen from inside a virtual machine", "use bare metal"
        )
    family, model = _number(fields.get("cpu family")), _number(fields.get("model"))
    for product in _PRODUCTS:
        if product[0] == family and product[1] <= model <= product[2]:
            return Finding("cpu", Status.OK, f"{product[3]}, {model_name}")
    return Finding("cpu", Status.MISSING, f"family {family:#x} model {model:#x}, {model_name}", buy)


def cpu_flags(machine: Machine) -> Finding:
    """Linux hides the flags when the BIOS left SMEE or the SMM lock off, so they tell about both."""
    fields = _cpuinfo(machine)
    if "flags" not in fields:
        return Finding("cpu-flags", Status.UNKNOWN, "/proc/cpuinfo shows no flags", "mount /proc")
    flags = fields["flags"].split()
    missing = [flag for flag in ("sev", "sev_es", "sev_snp") if flag not in flags]
    if not missing:
        return Finding("cpu-flags", Status.OK, "sev, sev_es, sev_snp")
    return Finding("cpu-flags", Status.MISSING, f"no {', '.join(missing)} in /proc/cpuinfo", _BIOS)


def psp_device(machine: Machine) -> Finding:
    if machine.exists("dev/sev"):
        return Finding("psp-device", Status.OK, "/dev/sev")
    return Finding(
        "psp-device", Status.MISSING, "no /dev/sev", "load ccp; without SEV in the BIOS it makes no device"
    )


def psp_firmware(machine: Machine) -> Finding:
    remedy = "update the BIOS, or put the newest amd_sev_fam*.sbin into /lib/firmware/amd and reload ccp"
    if machine.snp is None:
        return Finding(
            "psp-firmware",
            Status.UNKNOWN,
            "/dev/sev gives no SNP status",
            "run as root on a host with SNP; `snphost show version` asks the same",
        )
    (major, minor), build = machine.snp.api, machine.snp.build
    good = (machine.snp.api, build) >= _FIRMWARE
    return Finding(
        "psp-firmware",
        Status.OK if good else Status.MISSING,
        f"API {major}.{minor}, build {build}" + ("" if good else "; verifiers ask for 1.55, build 21"),
        "" if good else remedy,
    )


def rmp(machine: Machine) -> Finding:
    if machine.snp is not None:
        if machine.snp.rmp:
            return Finding("rmp", Status.OK, "set up, says the secure processor")
        return Finding("rmp", Status.MISSING, "not set up, says the secure processor", _BIOS)
    if (machine.text("sys/module/kvm_amd/parameters/sev_snp") or "").strip() in {"Y", "1"}:
        return Finding("rmp", Status.OK, "set up: kvm_amd takes SNP only then")
    return Finding(
        "rmp",
        Status.UNKNOWN,
        "neither /dev/sev nor kvm_amd tells",
        "journalctl -k | grep 'RMP table' shows its range, or why there is none",
    )


def asids(machine: Machine) -> Finding:
    """Each running SNP guest takes one SEV-ES ASID."""
    text = machine.text("sys/fs/cgroup/misc.capacity")
    if text is None:
        return Finding(
            "asids",
            Status.UNKNOWN,
            "no /sys/fs/cgroup/misc.capacity",
            "load kvm_amd, mount cgroup2 with its misc controller (CONFIG_CGROUP_MISC)",
        )
    counts = dict(line.split()[:2] for line in text.splitlines() if len(line.split()) >= 2)
    found = _number(counts.get("sev_es"))
    if found > 0:
        return Finding("asids", Status.OK, f"{found}, one for each guest")
    return Finding("asids", Status.MISSING, "none for SEV-ES and SNP", _BIOS)


def _cpuinfo(machine: Machine) -> dict[str, str]:
    first = (machine.text("proc/cpuinfo") or "").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else -1

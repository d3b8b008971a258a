"""The untrusted host: starts QEMU, checks the machine. Nothing here can weaken the guest."""

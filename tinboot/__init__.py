"""tinboot: confidential VMs whose every byte is accounted for. The folders are the trust zones."""

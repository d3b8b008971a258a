"""Bodies encrypted from client to guest, for both ends: bytes to bytes, no I/O."""

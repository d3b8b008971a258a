"""One module a subject; every check is a pure function from `Machine` to `Finding`."""

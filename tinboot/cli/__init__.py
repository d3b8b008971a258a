"""The command line: argument parsing, progress and exit codes. One module a command, loaded when called."""

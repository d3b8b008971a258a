"""Names of environment variables by whose value other code runs: no operator may give one, unmeasured."""

from __future__ import annotations

#: Variables by which a loader, an interpreter, a shell, a library or a container engine is told to run
#: something else, or to trust somebody else.
_EXACT = frozenset(
    {
        *("PATH", "HOME", "SHELL", "SHELLOPTS", "BASHOPTS", "BASH_ENV", "ENV", "IFS", "CDPATH", "PS4"),
        *("PROMPT_COMMAND", "EDITOR", "VISUAL", "PAGER", "HOSTALIASES", "RES_OPTIONS", "LOCALDOMAIN"),
        *("GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH", "TZDIR"),
        *("NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS", "PERL5OPT", "PERL5LIB", "PERLLIB", "PERL5DB"),
        *("RUBYOPT", "RUBYLIB", "GEM_PATH", "GEM_HOME", "LUA_INIT", "LUA_PATH", "LUA_CPATH", "PHPRC"),
        *("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "GODEBUG", "RUSTC_WRAPPER"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "CURL_HOME"),
        *("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "container"),
    }
)
_PREFIXES = (
    *("LD_", "DYLD_", "PYTHON", "MALLOC_", "GIT_", "_JAVA", "BASH_FUNC_", "OPENSSL_", "DOTNET_", "CORECLR_"),
    *("CONTAINERS_", "CONTAINER_", "PODMAN_", "STORAGE_", "CRUN_", "XDG_", "SYSTEMD_", "NVIDIA_", "CUDA_"),
)


def changes_what_runs(name: str) -> bool:
    """Whether by a variable of this name other code may run, or others be trusted, than the config says."""
    return name in _EXACT or name.startswith(_PREFIXES)

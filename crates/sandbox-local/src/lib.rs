//! The local sandbox for Linux: namespaces, seccomp, cgroups.

"""The command lines of `xen2kvm`, a module for each part of a migration."""

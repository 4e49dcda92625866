"""From Xen to KVM and back: fencing, preflight, convert, start, send-back, checks, announce."""

"""How a guest boots: its kernels, its menu, its initramfs, and GRUB."""

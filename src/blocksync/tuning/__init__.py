"""Which block size suits these devices and changes: measured, then recommended."""

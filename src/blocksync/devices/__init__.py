"""Files and block devices: their names, where their bytes lie, who uses them, what refuses a target."""

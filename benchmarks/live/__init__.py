"""The last pass of a live migration: does it cost what changed, or what the disk holds?"""

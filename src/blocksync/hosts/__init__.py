"""Hosts: their names, their programs, and commands that are run on them."""

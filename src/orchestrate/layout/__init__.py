"""Partition tables: where each volume of a guest lies on its new disk."""

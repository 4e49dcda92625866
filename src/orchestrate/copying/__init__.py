"""Passes over all volumes of a guest: sources, snapshot sets, proofs, and what the last pass will take."""

"""Fix-ups: one small module for each rule of what changes inside a guest."""

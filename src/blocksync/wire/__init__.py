"""The wire: one pass over a channel between two hosts, as docs/wire.md describes it.

`frames` are what travels, `messages` what control frames say, `link` moves frames over two descriptors with
deadlines. Who talks over it is in `blocksync.ends`.
"""

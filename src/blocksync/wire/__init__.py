"""The wire: one pass over a channel between two hosts, as docs/wire.md describes it.

`frames` are what travels, `messages` what control frames say, `link` moves frames over two descriptors with
deadlines, `source` and `target` are the two ends of a pass. Either end may be the near one.
"""

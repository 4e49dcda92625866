"""The picture of a run: one group of horizontal bars a pass, drawn as SVG."""

from xml.sax.saxutils import escape

WIDTH = 760
NAMES = 170
BAR = 18
GAP = 6
TITLE = 30
ROOM = 90

STYLE = """\
text { font: 12px sans-serif; fill: #333 }
.title { font-weight: bold; font-size: 13px }
.ours { fill: #1668a8 }
.peer { fill: #b8bcc2 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }
"""


def draw(groups: list[tuple[str, dict[str, float]]]) -> str:
    """SVG of (title, seconds by tool) groups; each group has a scale of its own, shortest bar first."""
    y = 0
    parts = []
    for title, medians in groups:
        parts.append(
            f'<text class="title" x="0" y="{y + 20}">{escape(title)} (seconds, less is better)</text>'
        )
        y += TITLE
        longest = max(medians.values(), default=1.0)
        for name, seconds in sorted(medians.items(), key=lambda each: each[1]):
            parts.append(_bar(name, seconds, seconds / longest, y))
            y += BAR + GAP
        y += GAP
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}">\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _bar(name: str, seconds: float, share: float, y: int) -> str:
    kind = "ours" if name.partition(",")[0] == "blocksync" else "peer"
    width = max(1.0, share * (WIDTH - NAMES - ROOM))
    middle = y + BAR - 5
    return (
        f'<text x="{NAMES - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{NAMES}" y="{y}" width="{width:.1f}" height="{BAR}"/>'
        f'<text x="{NAMES + width + 6:.1f}" y="{middle}">{seconds:.3f}</text>'
    )

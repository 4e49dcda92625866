"""What Ctrl-C, SIGTERM and SIGHUP do to a command, from its start to its end.

Signals that are ignored stay so: that is how `nohup` and shells start what is to outlive them.
"""

import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []


def _heeded() -> list[signal.Signals]:
    return [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def hold() -> None:
    """They wait until `heed`."""
    for number in _heeded():
        signal.signal(number, lambda came, _: _came.append(came))


def heed() -> None:
    """From now on each raises KeyboardInterrupt: mounts and overlays are put away as after Ctrl-C. One that
    was held does so at once.
    """
    for number in _heeded():
        signal.signal(number, signal.default_int_handler)
    if _came:
        raise KeyboardInterrupt


def ignore() -> None:
    """The command has ended: what is left to be said is said."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave() -> None:
    """They do what they do to every program."""
    for number in _heeded():
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

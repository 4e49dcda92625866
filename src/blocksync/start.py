"""The entry point of `blocksync`, and what every command of ours begins with.

Ctrl-C, SIGTERM and SIGHUP wait from here on until all that says what became of the command is loaded.
Signals that are ignored stay so: that is how `nohup` and shells start what is to outlive them.
"""

import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []


def _wait(number: int, _frame: object) -> None:
    _came.append(number)


_heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
for _number in _heeded:
    signal.signal(_number, _wait)


def heed_signals() -> None:
    """From now on these signals raise KeyboardInterrupt; one that came before does so at once."""
    for number in _heeded:
        signal.signal(number, signal.default_int_handler)
    if _came:
        raise KeyboardInterrupt


def ignore_signals() -> None:
    """The command has ended: what is left to be said is said."""
    for number in _heeded:
        signal.signal(number, signal.SIG_IGN)


def leave_signals() -> None:
    """As they are for every program."""
    for number in _heeded:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def main() -> None:
    """`blocksync`"""
    from blocksync import cli  # noqa: PLC0415

    cli.main()

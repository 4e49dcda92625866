import pytest
from guest_files import after, text

PATH = "/etc/inittab"


def fixed(before: str) -> list[str]:
    return (text(after("inittab", {PATH: before}), PATH) or "").splitlines()


def test_debian_from_xen_tools_gets_its_terminals_back_and_a_serial_one():
    before = """
        id:2:initdefault:
        1:2345:respawn:/sbin/getty 38400 hvc0
        #2:23:respawn:/sbin/getty 38400 tty2
        #6:23:respawn:/sbin/getty 38400 tty6
        # Example how to put a getty on a serial line (for a terminal)
        #T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100
        #T1:23:respawn:/sbin/getty -L ttyS1 9600 vt100
    """
    assert fixed(before) == [
        "id:2:initdefault:",
        "1:2345:respawn:/sbin/getty 38400 tty1",
        "2:23:respawn:/sbin/getty 38400 tty2",
        "6:23:respawn:/sbin/getty 38400 tty6",
        "# Example how to put a getty on a serial line (for a terminal)",
        "T0:23:respawn:/sbin/getty -L ttyS0 115200 vt100",
        "#T1:23:respawn:/sbin/getty -L ttyS1 9600 vt100",
    ]


def test_debian_without_a_serial_example_gets_a_new_line():
    before = "1:2345:respawn:/sbin/getty 38400 tty1\n2:23:respawn:/sbin/getty 38400 tty2\n"
    assert fixed(before) == [*before.splitlines(), "T0:23:respawn:/sbin/getty -L ttyS0 115200 vt100"]


def test_red_hats_console_moves_to_the_serial_port():
    before = "1:2345:respawn:/sbin/mingetty tty1\nco:2345:respawn:/sbin/agetty xvc0 9600 vt100-nav\n"
    assert fixed(before) == [
        "1:2345:respawn:/sbin/mingetty tty1",
        "co:2345:respawn:/sbin/agetty ttyS0 115200 vt100-nav",
    ]


def test_red_hat_without_a_console_line_gets_agetty_in_every_level():
    before = "1:2345:respawn:/sbin/mingetty tty1\nS0:3:respawn:/usr/bin/daemon-with-getty x\n"
    assert fixed(before)[-1] == "s0:12345:respawn:/sbin/agetty ttyS0 115200 vt100-nav"


def test_xens_console_beside_a_serial_one_is_commented():
    before = """
        1:2345:respawn:/sbin/getty 38400 tty1
        co:23:respawn:/sbin/getty -L hvc0 9600 vt102
        T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100
    """
    assert fixed(before)[1:] == [
        "#co:23:respawn:/sbin/getty -L hvc0 9600 vt102",
        "T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100",
    ]


def test_terminals_that_somebody_commented_stay_so_where_there_is_no_xen_console():
    before = [
        "1:2345:respawn:/sbin/getty 38400 tty1",
        "#2:23:respawn:/sbin/getty 38400 tty2",
        "T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100",
    ]
    assert fixed("\n".join(before)) == before


@pytest.mark.parametrize("before", ["# systemd does not use inittab\n", "id:5:initdefault:\n"])
def test_an_inittab_without_gettys_is_left_alone(before):
    assert fixed(before) == before.splitlines()


BUSYBOX = "::sysinit:/sbin/openrc sysinit\n::shutdown:/sbin/openrc shutdown\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            "tty1::respawn:/sbin/getty 38400 tty1\nhvc0::respawn:/sbin/getty -L hvc0 9600 vt100\n",
            ["tty1::respawn:/sbin/getty 38400 tty1", "ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100"],
        ),
        (
            "hvc0::respawn:/sbin/getty -L hvc0 9600 vt100\nttyS0::respawn:/sbin/getty -L ttyS0 9600 vt100\n",
            [
                "#hvc0::respawn:/sbin/getty -L hvc0 9600 vt100",
                "ttyS0::respawn:/sbin/getty -L ttyS0 9600 vt100",
            ],
        ),
        ("hvc0::askfirst:/bin/ash --login\n", ["ttyS0::askfirst:/bin/ash --login"]),
        ("::askconsole:/bin/ash --login\n", ["::askconsole:/bin/ash --login"]),
        ("console::respawn:/sbin/getty -L console 0\n", ["console::respawn:/sbin/getty -L console 0"]),
        (
            "#ttyS0::respawn:/sbin/getty -L ttyS0 9600 vt100\n",
            ["ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100"],
        ),
        (
            "tty1::respawn:/sbin/getty 38400 tty1\n",
            ["tty1::respawn:/sbin/getty 38400 tty1", "ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100"],
        ),
    ],
)
def test_busyboxs_inittab_gets_one_terminal_on_the_serial_port(lines, expected):
    assert fixed(BUSYBOX + lines)[2:] == expected

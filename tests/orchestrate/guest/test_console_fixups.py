"""securetty, systemd and Upstart."""

from guest_files import after, text

WANTS = "/etc/systemd/system/getty.target.wants"
TTY1 = "# tty1 - getty\nstart on stopped rc RUNLEVEL=[2345]\nrespawn\nexec /sbin/getty -8 38400 tty1\n"


def test_securetty_gains_the_serial_port_and_keeps_xens_console():
    guest = after("securetty", {"/etc/securetty": "console\nhvc0"})
    assert text(guest, "/etc/securetty") == "console\nhvc0\nttyS0"


def test_securetty_is_not_made_where_there_is_none_nor_filled_twice():
    assert after("securetty", {}).read("/etc/securetty") is None
    assert text(after("securetty", {"/etc/securetty": "ttyS0\n"}), "/etc/securetty") == "ttyS0\n"


def test_systemd_loses_only_the_gettys_of_xens_consoles():
    units = (
        "serial-getty@hvc0.service",
        "getty@hvc0.service",
        "getty@tty1.service",
        "serial-getty@ttyS0.service",
    )
    guest = after("systemd-console", {f"{WANTS}/{unit}": "[Unit]\n" for unit in units})
    assert guest.names(WANTS) == ("getty@tty1.service", "serial-getty@ttyS0.service")


def test_upstarts_hvc0_job_becomes_the_serial_one_and_tty1s():
    guest = after("upstart", {"/etc/init/hvc0.conf": TTY1.replace("tty1", "hvc0")})
    assert guest.names("/etc/init") == ("tty1.conf", "ttyS0.conf")
    assert text(guest, "/etc/init/tty1.conf") == TTY1
    assert text(guest, "/etc/init/ttyS0.conf") == TTY1.replace("tty1", "ttyS0").replace("38400", "115200")


def test_upstarts_older_jobs_in_event_d_change_likewise():
    guest = after("upstart", {"/etc/event.d/hvc0": TTY1.replace("tty1", "hvc0"), "/etc/event.d/rc2": "x\n"})
    assert guest.names("/etc/event.d") == ("rc2", "tty1", "ttyS0")


def test_upstart_without_a_xen_console_still_gets_a_serial_job_and_keeps_its_own():
    own = "exec /sbin/getty ttyS0 9600\n"
    assert "ttyS0.conf" in after("upstart", {"/etc/init/tty1.conf": TTY1}).names("/etc/init")
    kept = after("upstart", {"/etc/init/tty1.conf": TTY1, "/etc/init/ttyS0.conf": own})
    assert text(kept, "/etc/init/ttyS0.conf") == own


def test_red_hat_6_has_jobs_of_its_own():
    files = {"/etc/init/tty.conf": "instance $TTY\n", "/etc/init/serial.conf": "exec agetty $DEV\n"}
    assert after("upstart", files).names("/etc/init") == ("serial.conf", "tty.conf")

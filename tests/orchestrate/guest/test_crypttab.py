from guest_files import after, text

from orchestrate.guest.facts import Facts, GuestVolume

FACTS = Facts((GuestVolume("xvda1", 1, "unknown"), GuestVolume("xvda3", 3, "crypto_LUKS", "abcd")))


def test_luks_goes_by_the_headers_uuid_and_random_swap_by_partition():
    before = "# name\nhome\t/dev/xvda3\tnone\tluks\nswap /dev/xvda1 /dev/urandom swap\nx UUID=1 none luks\n"
    guest = after("crypttab", {"/etc/crypttab": before}, FACTS)
    assert text(guest, "/etc/crypttab") == before.replace("/dev/xvda3", "UUID=abcd").replace(
        "/dev/xvda1", "/dev/vda1"
    )

"""What is refused before any program sees it, and what a shell reads back."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocksync.errors import Usage
from blocksync.hosts.name import HostName
from blocksync.transports.command_line import quoted
from blocksync.transports.host_keys import checked_fingerprint

HOSTILE = ["", "-oProxyCommand=x", "a\0b", "a\nb", "a\rb", "a b", "$(id)", "a`id`", "a;b", "ssh://b", "a@b"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_host_name_is_refused(name):
    with pytest.raises(Usage):
        HostName(None, name)


@pytest.mark.parametrize("user", ["", "-l", "a\nb", "a;b", "$(id)", "a b", "a\0"])
def test_a_hostile_user_name_is_refused(user):
    with pytest.raises(Usage):
        HostName(user, "xenhost")


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_no_server_has_is_refused(port):
    with pytest.raises(Usage):
        HostName(None, "xenhost", port)


@pytest.mark.parametrize(
    "name", ["xenhost", "xen_host-1.example.org", "192.0.2.1", "2001:db8::1", "fe80::1%eth0"]
)
def test_names_and_addresses_are_taken(name):
    assert HostName("root", name, 22).name == name


def test_a_host_reads_as_in_a_url():
    assert str(HostName("root", "xenhost", 2222)) == "root@xenhost:2222"
    assert str(HostName(None, "2001:db8::1", 22)) == "[2001:db8::1]:22"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=20), min_size=1))
def test_a_shell_reads_back_the_same_words(words):
    line = quoted(["printf", "%s\\0", *words])
    read = subprocess.run(["sh", "-c", line], check=True, capture_output=True).stdout
    assert read.decode().split("\0")[:-1] == words


@pytest.mark.parametrize("word", ["a\0b", "a\rb", "a\nb"])
def test_words_that_no_quoting_saves_are_refused(word):
    with pytest.raises(Usage):
        quoted(["echo", word])


@pytest.mark.parametrize("text", ["", "MD5:00:11", "SHA256:short", "SHA256:" + "A" * 43 + "; id"])
def test_what_is_no_fingerprint_is_refused(text):
    with pytest.raises(Usage):
        checked_fingerprint(text)

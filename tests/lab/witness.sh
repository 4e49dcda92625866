#!/bin/sh
# The witness: writes a numbered record each half second, for ever. Record N is 64 KiB in a slot on /srv that
# carries its own number and checksum; once it is durable there, N and its checksum go into the log on /; once they
# are durable too, the record is acknowledged on the console. So on any crash-consistent moment of both volumes
# together, the log has no gap, and the slots of its last records hold them whole.
set -eu
slots=/srv/witness log=/var/lib/witness/log body=/run/witness.body
mkdir -p "$slots" "${log%/*}"
touch "$log"
last=$(tail -n 1 "$log" | cut -d' ' -f1)
number=${last:-0}
while :; do
    number=$((number + 1))
    head -c 65408 /dev/urandom >"$body"
    sum=$(sha256sum <"$body")
    sum=${sum%% *}
    { printf '%-127s\n' "$number $sum"; cat "$body"; } >"$slots/new"
    sync "$slots/new"
    mv "$slots/new" "$slots/$((number % 64))"
    sync "$slots"
    echo "$number $sum" >>"$log"
    sync "$log"
    echo "witness: acknowledged $number $sum" >/dev/console
    sleep 0.5
done

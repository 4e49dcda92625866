#!/bin/sh
# Makes a paravirtual Xen guest ready for KVM, inside the guest, while it runs under Xen.
#
#   sh prepare.sh [--dry-run]     do it, or only say what would be done
#   sh prepare.sh --undo          put every changed file back (packages stay)
#
# Run as root. It may be run again: what is in order already is left alone. Every line of its output starts with
#   have:  in order already       did:   done now          would: a run without --dry-run would do it
#   keep:  left as it is, why     todo:  something that only you can do
#
# What Xen's own boot of the guest uses stays as it is:
#   - No boot loader is written to any device, and nothing is removed.
#   - A kernel that Xen's configuration names lies outside of the guest and is not concerned.
#   - pygrub and PV-GRUB read a menu inside the guest. A menu that was there before is put back byte for byte when
#     a package's installation changes it: Xen goes on booting the kernel that it boots now. The cutover writes a
#     menu of its own for KVM.
#   - Xen's console stays the last one named, so that it stays /dev/console where it exists.
#
# The original of each changed file stays beside it as NAME.xen2kvm-before; /etc/xen2kvm.prepared lists them.
set -eu
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
umask 022

RECORD=/etc/xen2kvm.prepared
MODULES="virtio_pci virtio_blk virtio_net"
MENUS="/boot/grub/menu.lst /boot/grub/grub.conf /boot/grub/grub.cfg /boot/grub/grubenv
    /boot/grub2/grub.cfg /boot/grub2/grubenv /boot/extlinux/extlinux.conf"
DRY_RUN=no
STALE_INITRAMFS=no
SCRATCH=

say() { printf '%s: %s\n' "$1" "$2"; }

give_up() {
    printf '%s\n' "$1" >&2
    exit 1
}

# Whether changes are wanted. If not, say what would be done.
act() {
    [ "$DRY_RUN" = no ] && return 0
    say would "$1"
    return 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# ---- changing files, and taking it back --------------------------------------------------------------------

# Where the original of a file is kept. Folders in which every visible file is read get a hidden name.
kept() {
    case "$1" in
        /etc/initramfs-tools/conf.d/* | /etc/default/grub.d/*) printf '%s/.%s.xen2kvm-before' "${1%/*}" "${1##*/}" ;;
        *) printf '%s.xen2kvm-before' "$1" ;;
    esac
}

sum() { cksum <"$1" | tr -s ' \t' '-'; }

# replace FILE WHY: give FILE the content of $SCRATCH/new, unless it has it already.
replace() {
    if [ -f "$1" ] && cmp -s "$1" "$SCRATCH/new"; then
        say have "$1: $2"
        return 0
    fi
    act "change $1: $2" || return 0
    file=$(readlink -f "$1" 2>/dev/null || printf '%s' "$1")
    new="${file%/*}/.${file##*/}.xen2kvm-new"
    how=created
    if [ -f "$file" ]; then
        how=replaced
        [ -e "$(kept "$file")" ] || cp -p "$file" "$(kept "$file")"
        cp -p "$file" "$new"
    fi
    cat "$SCRATCH/new" >"$new"
    note "$how" "$file" "$(sum "$new")"
    mv -f "$new" "$file"
    say did "$1: $2"
}

# start_from FILE: $SCRATCH/new becomes its content, with an end to its last line, so that lines can be added.
start_from() { awk 1 "$1" >"$SCRATCH/new"; }

# note HOW FILE SUM: what was done to a file for the first time counts, and what it holds since the last time.
note() {
    touch "$RECORD"
    first=$(awk -v file="$2" '$2 == file { print $1; exit }' "$RECORD")
    awk -v file="$2" '$2 != file' "$RECORD" >"$RECORD.new"
    printf '%s %s %s\n' "${first:-$1}" "$2" "$3" >>"$RECORD.new"
    mv -f "$RECORD.new" "$RECORD"
}

undo() {
    restore_initramfs
    if [ ! -s "$RECORD" ]; then
        say have "no changed file: $RECORD lists none"
        return 0
    fi
    cp "$RECORD" "$SCRATCH/record"
    : >"$SCRATCH/left"
    while read -r how file sum; do
        undo_one "$how" "$file" "$sum"
    done <"$SCRATCH/record"
    if [ "$DRY_RUN" = no ]; then
        if [ -s "$SCRATCH/left" ]; then cat "$SCRATCH/left" >"$RECORD"; else rm -f "$RECORD"; fi
    fi
}

undo_one() {
    if [ "$1" = installed ]; then
        say keep "package $2 stays; when nothing needs it, remove it yourself"
    elif [ ! -f "$2" ] || [ "$(sum "$2")" != "$3" ]; then
        say todo "$2 was changed since; compare it with $(kept "$2") yourself"
        printf '%s\n' "$1 $2 $3" >>"$SCRATCH/left"
    elif act "put back $2"; then
        if [ "$1" = created ]; then rm -f "$2"; else mv -f "$(kept "$2")" "$2"; fi
        say did "$2 is as it was before"
    fi
}

# ---- kernel and GRUB packages ------------------------------------------------------------------------------

kernel_versions() {
    for image in /boot/vmlinuz-* /boot/vmlinux-*; do
        [ -f "$image" ] || continue
        case "$image" in *rescue* | *kdump* | *.old | *.bak | *.rpmsave | *.dpkg-* | *.xen2kvm-*) continue ;; esac
        printf '%s\n' "${image#/boot/vmlinu?-}"
    done
}

initramfs_of() {
    for image in "/boot/initrd.img-$1" "/boot/initramfs-$1.img" "/boot/initrd-$1.img" "/boot/initramfs-$1" "/boot/initrd-$1"; do
        if [ -f "$image" ]; then
            printf '%s' "$image"
            return 0
        fi
    done
}

# virtio_of VERSION: "built-in", "module" or "none". Kernels for Xen alone cannot boot anywhere else.
virtio_of() {
    config=/boot/config-$1
    if [ ! -f "$config" ]; then
        case "$1" in *xen*) printf none ;; *) printf module ;; esac
    elif grep -q '^CONFIG_X86_XEN=y\|^CONFIG_X86_64_XEN=y' "$config"; then
        printf none
    elif grep -q '^CONFIG_VIRTIO_BLK=y' "$config"; then
        printf built-in
    elif grep -q '^CONFIG_VIRTIO_BLK=m' "$config"; then
        printf module
    else
        printf none
    fi
}

kernel_for_kvm() {
    for version in $(kernel_versions); do
        if [ "$(virtio_of "$version")" != none ]; then
            printf '%s' "$version"
            return 0
        fi
    done
}

packages() {
    if has apt-get && has dpkg; then
        debian_packages
    elif has dnf || has yum; then
        red_hat_packages
    elif [ -n "$(kernel_for_kvm)" ]; then
        say have "kernel $(kernel_for_kvm) can boot under KVM"
    else
        say todo "no apt, yum or dnf here: install your distribution's own kernel (not one for Xen only) and GRUB"
    fi
}

installed_deb() { dpkg -s "$1" 2>/dev/null | grep -q '^Status: .* installed$'; }

debian_packages() {
    wanted=
    if [ -n "$(kernel_for_kvm)" ]; then
        say have "kernel $(kernel_for_kvm) can boot under KVM"
    else
        wanted=kernel
    fi
    other=$(other_grub)
    if installed_deb grub-pc; then
        say have "package grub-pc"
    elif [ -n "$other" ]; then
        say keep "package $other, because its menu may be what Xen boots; grub-pc can replace it after the move"
    else
        wanted="$wanted grub"
    fi
    [ -n "$wanted" ] || return 0
    [ "$DRY_RUN" = yes ] || apt_lists
    names=
    for each in $wanted; do
        # shellcheck disable=SC2046  # a list of names
        name=$(first_known $("debian_$each"))
        [ -n "$name" ] || name=$("debian_$each" | sed 's/ .*//')
        [ -n "$name" ] || give_up "no $each for KVM is known here: install one yourself, and run this again"
        names="$names $name"
    done
    names=${names# }
    act "install $names, no boot loader written anywhere" || return 0
    no_boot_loader
    # Nothing is removed for it, no configuration file replaced, no service restarted.
    # shellcheck disable=SC2086  # a list of names
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y --no-remove --no-install-recommends \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold install $names >&2 ||
        give_up "apt-get could not install $names: see its message above. Nothing else was changed."
    for name in $names; do record_package "$name"; done
    say did "installed $names, no boot loader written anywhere"
}

record_package() {
    grep -q "^installed $1 " "$RECORD" 2>/dev/null || printf 'installed %s -\n' "$1" >>"$RECORD"
}

# Packages that grub-pc would push out.
other_grub() {
    for name in grub-legacy grub-xen grub-efi-amd64 grub-efi-ia32 grub; do
        if installed_deb "$name"; then
            printf '%s' "$name"
            return 0
        fi
    done
}

# Names that releases have given the package, the newest first.
debian_kernel() {
    ubuntu=no
    grep -qi ubuntu /etc/os-release /etc/lsb-release 2>/dev/null && ubuntu=yes
    case "$ubuntu-$(dpkg --print-architecture)" in
        yes-*) printf '%s' "linux-image-virtual linux-virtual linux-image-generic linux-image-server" ;;
        no-amd64) printf '%s' "linux-image-amd64 linux-image-2.6-amd64" ;;
        no-i386) printf '%s' "linux-image-686-pae linux-image-686 linux-image-2.6-686 linux-image-2.6-486" ;;
        *) ;;
    esac
}

debian_grub() { printf '%s' "grub-pc grub2 grub"; }

first_known() {
    for name in "$@"; do
        if apt-cache policy "$name" 2>/dev/null | grep -q 'Candidate: [^(]'; then
            printf '%s' "$name"
            return 0
        fi
    done
}

apt_lists() {
    apt-get -q update >"$SCRATCH/apt" 2>&1 && ! grep -q '^\(W: Failed to fetch\|Err\)' "$SCRATCH/apt" && return 0
    cat "$SCRATCH/apt" >&2
    # Lists of another day may do; a release whose archive is gone has none, or packages that are not there.
    # shellcheck disable=SC2046
    [ -n "$(first_known $(debian_kernel))" ] && return 0
    give_up "apt cannot reach the archive of $(release), or it is gone. Old releases move to their distribution's
archive of old releases: name that in /etc/apt/sources.list, drop the lines of -updates and security, and put
Acquire::Check-Valid-Until \"false\";  into /etc/apt/apt.conf.d/99archive. Then run this again.
No package was installed."
}

release() {
    (. /etc/os-release && printf '%s' "$PRETTY_NAME") 2>/dev/null ||
        head -n 1 /etc/redhat-release 2>/dev/null || printf 'Debian %s' "$(cat /etc/debian_version)"
}

# grub-pc asks where to install itself, and whether to put itself into GRUB legacy's menu: nowhere, and no.
no_boot_loader() {
    has debconf-set-selections || return 0
    debconf-set-selections <<'END'
grub-pc grub-pc/install_devices multiselect
grub-pc grub-pc/install_devices_empty boolean true
grub-pc grub-pc/chainload_from_menu.lst boolean false
END
}

red_hat_packages() {
    manager=yum
    has dnf && manager=dnf
    names=
    if [ -n "$(kernel_for_kvm)" ]; then
        say have "kernel $(kernel_for_kvm) can boot under KVM"
    else
        names=kernel
    fi
    if rpm -q grub2-pc >/dev/null 2>&1 || rpm -q grub2 >/dev/null 2>&1 || rpm -q grub >/dev/null 2>&1; then
        say have "GRUB's package"
    else
        case "$(sed 's/[^0-9]*\([0-9]*\).*/\1/' /etc/redhat-release 2>/dev/null)" in
            4 | 5 | 6) names="$names grub" ;;
            *) names="$names grub2-pc" ;;
        esac
    fi
    names=${names# }
    [ -n "$names" ] || return 0
    act "install $names, no boot loader written anywhere" || return 0
    # These packages write no boot loader; grub-install would.
    # shellcheck disable=SC2086  # a list of names
    $manager -y install $names >&2 || give_up "$manager could not install $names: see its message above.
If the archive of $(release) is gone: old releases move to their distribution's archive of old releases; set
baseurl= in /etc/yum.repos.d to it, comment mirrorlist= out, and run this again."
    for name in $names; do record_package "$name"; done
    say did "installed $names, no boot loader written anywhere"
}

# ---- the menus that pygrub and PV-GRUB read ----------------------------------------------------------------

remember_menus() {
    for menu in $MENUS; do
        if [ -f "$menu" ]; then cp -p "$menu" "$SCRATCH/$(printf '%s' "$menu" | tr / _)"; fi
    done
}

put_menus_back() {
    for menu in $MENUS; do
        before="$SCRATCH/$(printf '%s' "$menu" | tr / _)"
        [ -f "$before" ] || continue
        cmp -s "$menu" "$before" && continue
        cp -p "$before" "$menu.xen2kvm-new"
        mv -f "$menu.xen2kvm-new" "$menu"
        say keep "$menu: put back as it was, because Xen may boot what it names"
    done
}

# ---- /etc/fstab --------------------------------------------------------------------------------------------

fstab() {
    [ -f /etc/fstab ] || { say todo "there is no /etc/fstab"; return 0; }
    cp /etc/fstab "$SCRATCH/new"
    for device in $(awk '$1 ~ "^/dev/(xvd|sd|hd|vd)[a-z]+[0-9]*$" { print $1 }' /etc/fstab | sort -u); do
        uuid=$(uuid_of "$device")
        [ -n "$uuid" ] || continue
        sed "s|^\\([[:space:]]*\\)$device\\([[:space:]]\\)|\\1UUID=$uuid\\2|" "$SCRATCH/new" >"$SCRATCH/edited"
        mv "$SCRATCH/edited" "$SCRATCH/new"
    done
    replace /etc/fstab "file systems by UUID, because KVM's disk has other names"
}

# The UUID of a device if it is the only one with it. Says why otherwise (on stderr: stdout is the answer).
uuid_of() {
    uuid=$(blkid -c /dev/null -o value -s UUID "$1" 2>/dev/null) || uuid=
    if [ -z "$uuid" ]; then
        say keep "$1 in /etc/fstab, because it is not here or has no UUID" >&3
    elif [ "$(uuids_here | grep -cx "$uuid")" -gt 1 ]; then
        say keep "$1 in /etc/fstab, because another device has the same UUID $uuid" >&3
    else
        printf '%s' "$uuid"
    fi
}

uuids_here() {
    for device in $(awk 'NR > 2 { print "/dev/" $4 }' /proc/partitions); do
        blkid -c /dev/null -o value -s UUID "$device" 2>/dev/null || true
    done
}

# ---- initramfs ---------------------------------------------------------------------------------------------

initramfs() {
    if [ -f /etc/initramfs-tools/modules ]; then
        initramfs_tools_modules
        resume
    elif has dracut; then
        printf '# the next initramfs holds virtio'"'"'s drivers, because one made under Xen may hold only Xen'"'"'s\nadd_drivers+=" %s "\n' \
            "$MODULES" >"$SCRATCH/new"
        replace /etc/dracut.conf.d/xen2kvm.conf "virtio's drivers in every initramfs"
    elif ! has mkinitrd && [ "$DRY_RUN" = no ]; then
        say keep "no maker of an initramfs is known here (initramfs-tools, dracut, mkinitrd)"
    fi
    for version in $(kernel_versions); do initramfs_for "$version"; done
}

initramfs_tools_modules() {
    start_from /etc/initramfs-tools/modules
    for module in $MODULES; do
        grep -q "^[[:space:]]*$module\\b" "$SCRATCH/new" || printf '%s\n' "$module" >>"$SCRATCH/new"
    done
    replace /etc/initramfs-tools/modules "virtio's drivers in every initramfs"
}

# An initramfs waits for the swap that this names; under KVM it has another name.
resume() {
    file=/etc/initramfs-tools/conf.d/resume
    device=$(sed -n 's|^RESUME=\(/dev/[a-z0-9]*\)[[:space:]]*$|\1|p' "$file" 2>/dev/null) || device=
    [ -n "$device" ] || return 0
    uuid=$(uuid_of "$device")
    [ -n "$uuid" ] || return 0
    sed "s|^RESUME=.*|RESUME=UUID=$uuid|" "$file" >"$SCRATCH/new"
    STALE_INITRAMFS=yes
    replace "$file" "the swap by UUID, because an initramfs waits for a name that never comes"
}

initramfs_for() {
    [ "$(virtio_of "$1")" = module ] || return 0
    image=$(initramfs_of "$1")
    if [ -n "$image" ] && [ "$STALE_INITRAMFS" = no ] && holds_virtio "$image"; then
        say have "$image holds virtio_blk"
    elif [ ! -d "/lib/modules/$1" ]; then
        say keep "no initramfs is made for kernel $1, because /lib/modules/$1 is not there"
    elif [ -n "$image" ] && ! room_for "$image"; then
        say todo "/boot has no room for a second copy of $image: make some and run this again"
    elif act "make the initramfs of kernel $1 anew, with virtio's drivers"; then
        if [ -n "$image" ] && [ ! -e "$image.xen2kvm-before" ]; then cp -p "$image" "$image.xen2kvm-before"; fi
        build_initramfs "$1"
        image=$(initramfs_of "$1")
        if [ -z "$image" ] || ! holds_virtio "$image"; then
            give_up "the initramfs of kernel $1 has no virtio_blk after it was made anew; look at /boot and its maker's configuration"
        fi
        say did "$image was made anew and holds virtio_blk"
    fi
}

holds_virtio() {
    if has lsinitramfs; then
        lsinitramfs "$1" 2>/dev/null
    elif has lsinitrd; then
        lsinitrd "$1" 2>/dev/null
    else
        gzip -dc "$1" 2>/dev/null | cpio -it 2>/dev/null
    fi >"$SCRATCH/listing" || true
    grep -q 'virtio_blk\.ko' "$SCRATCH/listing"
}

# Twice its size: for the copy, and for the new one while it is made.
room_for() {
    needed=$(($(wc -c <"$1") / 512))
    [ "$(df -Pk /boot | awk 'END { print $4 }')" -gt "$needed" ]
}

build_initramfs() {
    if has update-initramfs; then
        if [ -n "$(initramfs_of "$1")" ]; then update-initramfs -u -k "$1" >&2; else update-initramfs -c -k "$1" >&2; fi
    elif has dracut; then
        dracut -f "/boot/initramfs-$1.img" "$1" >&2
    elif has mkinitrd; then
        mkinitrd -f --with=virtio_pci --with=virtio_blk --with=virtio_net "/boot/initrd-$1.img" "$1" >&2
    fi
}

restore_initramfs() {
    for version in $(kernel_versions); do
        image=$(initramfs_of "$version")
        [ -f "$image.xen2kvm-before" ] || continue
        if act "put back $image"; then
            mv -f "$image.xen2kvm-before" "$image"
            say did "$image is as it was before"
        fi
    done
}

# ---- consoles ----------------------------------------------------------------------------------------------

xen_console() {
    words=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^console=\([hx]vc[0-9]*\).*/\1/p' | tail -n 1)
    printf '%s' "${words:-hvc0}"
}

default_grub() {
    [ -f /etc/default/grub ] || return 0
    if grep -q '^[^#]*console=ttyS0' /etc/default/grub; then
        say have "/etc/default/grub: the serial console"
        return 0
    fi
    start_from /etc/default/grub
    printf '%s\n' '' "# For KVM's serial port. Xen's console comes last, so that it stays /dev/console under Xen." \
        "GRUB_CMDLINE_LINUX=\"\$GRUB_CMDLINE_LINUX console=tty0 console=ttyS0,115200n8 console=$(xen_console)\"" \
        >>"$SCRATCH/new"
    replace /etc/default/grub "the serial console beside Xen's, from the next update-grub on"
}

getty() {
    case "$(readlink -f /sbin/init 2>/dev/null)" in
        *systemd) say have "a getty on ttyS0: systemd starts it by itself when the kernel has that console" ;;
        *)
            if [ -f /etc/inittab ] && grep -q '^[^#].*:respawn:.*getty' /etc/inittab; then
                inittab
            elif [ -d /etc/init ]; then
                upstart
            else
                say todo "this init is not known here: start a getty on ttyS0 when that is the console"
            fi
            ;;
    esac
}

# Under Xen there is no serial port: a getty there would die at once, again and again. So the entry sleeps.
WAITS='[ -e /proc/xen -o -e /sys/hypervisor/type ] && exec sleep 999999'

inittab() {
    if grep -q '^[^#].*getty.*ttyS0' /etc/inittab; then
        say have "/etc/inittab: a getty on ttyS0"
        return 0
    fi
    program='/sbin/getty -L ttyS0 115200 vt100'
    grep -q '^[^#].*agetty\|^[^#].*mingetty' /etc/inittab && program='/sbin/agetty ttyS0 115200 vt100'
    start_from /etc/inittab
    printf '%s\n' "T0:2345:respawn:/bin/sh -c '$WAITS; exec $program'" >>"$SCRATCH/new"
    replace /etc/inittab "a getty on ttyS0 beside Xen's, asleep while there is Xen"
}

upstart() {
    if [ -f /etc/init/serial.conf ] || [ -f /etc/init/ttyS0.conf ]; then
        say have "a getty on ttyS0 in /etc/init"
        return 0
    fi
    cat >"$SCRATCH/new" <<END
# A getty on KVM's serial port, asleep while there is Xen.
start on stopped rc RUNLEVEL=[2345]
stop on runlevel [!2345]
respawn
exec /bin/sh -c '$WAITS; exec /sbin/getty -L ttyS0 115200 vt100'
END
    replace /etc/init/ttyS0.conf "a getty on ttyS0 beside Xen's, asleep while there is Xen"
}

securetty() {
    [ -f /etc/securetty ] || return 0
    start_from /etc/securetty
    grep -qx ttyS0 "$SCRATCH/new" || printf 'ttyS0\n' >>"$SCRATCH/new"
    replace /etc/securetty "root may log in on ttyS0 as well"
}

# ---- the power button --------------------------------------------------------------------------------------

# A KVM host has nothing else to ask its guest to shut down.
power_button() {
    if has acpid; then
        say have "acpid heeds the power button"
    elif { has dbus-daemon || has dbus-broker; } &&
        { [ -x /usr/lib/systemd/systemd-logind ] || [ -x /lib/systemd/systemd-logind ]; }; then
        say have "systemd-logind heeds the power button"
    else
        say todo "nobody here heeds the power button, and a KVM host has nothing else to ask for a shutdown: install dbus (with systemd) or acpid"
    fi
}

# ---- all of it ---------------------------------------------------------------------------------------------

main() {
    undoing=no
    for option in "$@"; do
        case "$option" in
            --dry-run) DRY_RUN=yes ;;
            --undo) undoing=yes ;;
            *) give_up "$option: no such option; there are --dry-run and --undo" ;;
        esac
    done
    [ "$(id -u)" = 0 ] || give_up "this changes system files: run it as root"
    if grep -q control_d /proc/xen/capabilities 2>/dev/null; then
        give_up "this is a Xen host, not a guest: run it inside the guest"
    fi
    SCRATCH=$(mktemp -d)
    trap 'rm -rf "$SCRATCH"' EXIT
    trap 'exit 1' HUP INT TERM
    if [ "$undoing" = yes ]; then
        undo
        return 0
    fi
    remember_menus
    # Whatever a package's scripts do and however they end, Xen's menu is there at the end.
    trap 'put_menus_back; rm -rf "$SCRATCH"' EXIT
    packages
    initramfs
    fstab
    default_grub
    getty
    securetty
    power_button
}

# Read to its end before anything runs, and never as somebody's standard input. 3 is the real output.
main "$@" 3>&1 </dev/null

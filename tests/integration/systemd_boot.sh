#!/bin/sh
# Process 1 of new namespaces (see systemd_sandbox.py): lays a throwaway layer over this machine's root and becomes
# systemd. Whatever is written inside is gone when it ends; this machine's own units do not run in it.
#
#   systemd_boot.sh EMPTY_FOLDER [SOURCE TARGET]...     each SOURCE appears inside at TARGET, read-only
set -eu
layer=$1 root=$1/root
shift

mount --make-rprivate /
mount -t tmpfs -o mode=755 layer "$layer"
mkdir "$layer/upper" "$layer/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" layer "$root"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/etc/systemd/system" "$root/opt/obcd"

# What the kernel shows. Its settings and devices are this machine's, so they can be read and not changed.
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"

mount -t tmpfs -o mode=755,nosuid devices "$root/dev"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<NODES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
NODES
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev shared "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${stream%:*}" "$root/dev/${stream#*:}"; done
mount -t tmpfs -o mode=755,nosuid,nodev runtime "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev temporary "$root/tmp"

# A quiet system: nothing that this machine's administrator enabled, nothing of an installed obcd, no first boot
# (which would enable every unit there is), no second root and no terminals.
mount -t tmpfs -o mode=755 units "$root/etc/systemd/system"
mount -t tmpfs -o mode=755 programs "$root/opt/obcd"
rm -rf "$root/etc/obcd" "$root/var/spool/obcd" "$root/var/lib/obcd" "$root/var/log/journal" "$root/etc/fstab"
rm -f "$root/etc/machine-id"
tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
for unit in systemd-networkd systemd-resolved systemd-timesyncd systemd-modules-load systemd-udevd console-getty; do
    ln -s /dev/null "$root/etc/systemd/system/$unit.service"
done

while [ $# -ge 2 ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
    shift 2
done

cd "$root"
mkdir run/outside
pivot_root . run/outside
cd /
umount -l /run/outside
rmdir /run/outside
program=/lib/systemd/systemd
[ -x "$program" ] || program=/usr/lib/systemd/systemd
# It may not load modules, set the clock or touch hardware: those are not in any namespace.
exec setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog -- \
    env -i container=obcd-test LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    "$program" --system --unit=multi-user.target --show-status=false

#!/bin/sh
# First process of a machine that `cargo xtask kernels` boots: takes the host's files as its root, with what is written to
# them in memory only, and goes on there with host.sh.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# Nothing of the kernel's between the lines of the suites.
dmesg -n 1
for module in $(cat /modules); do
    modprobe "$module" || echo "there is no module $module: is it built in?"
done
mkdir /host /memory /new
mount -t tmpfs -o size=75% tmpfs /memory
mkdir /memory/changes /memory/work
# The host's files do not change while this runs: they may be kept (cache=loose), and mapped. Who may read what is decided here.
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,access=any,ro host /host &&
    mount -t overlay -o lowerdir=/host,upperdir=/memory/changes,workdir=/memory/work overlay /new ||
    poweroff -f
for place in proc sys dev; do
    mount --move /$place /new/$place
done
mount -t tmpfs -o mode=755 tmpfs /new/run
cp /bin/busybox /host.sh /machine /command /new/run/
exec switch_root /new /bin/sh /run/host.sh

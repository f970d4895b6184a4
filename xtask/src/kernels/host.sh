# In a machine that `cargo xtask kernels` boots, behind init.sh: mounts what a host has, runs one command, powers off.
# `machine` says what is to be as on the host: HOME, PATH and MODULES.
. /run/machine
export HOME PATH
mkdir -p /dev/pts /dev/shm /run/netns /run/sshd /run/scratch /usr/lib/modules
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777,size=75% tmpfs /run/scratch
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
# The kernel calls this program for the modules that it lacks.
mount --bind "$MODULES" /usr/lib/modules
[ -e /sbin/modprobe ] || cp /run/busybox /usr/sbin/modprobe
/run/busybox hostname kernels
/run/busybox ip link set lo up
# A folder of its own: the host's may be long, and is not in memory alone.
export TMPDIR=/run/scratch
cd /
. /run/command >/run/figures
ended=$?
dmesg | grep -E 'BUG:|WARNING:|Oops|Out of memory|segfault' | tail -n 20
# The last lines are what `machine` reads; the machine is off behind them.
echo "figures: $(tail -n 1 /run/figures)"
echo "ended: $ended"
/run/busybox poweroff -f

# Boots the systemd of a root in namespaces that were just made: container.sh ROOT
#
# Runs as their first process. What belongs to the whole machine is read-only or not there: /sys, /proc/sys, devices. The
# cgroup namespace begins at a cgroup of its own, so that what systemd sorts there is the container's alone.
set -eu
root=$1

mount -t proc proc "$root/proc"
for shared in sys sysrq-trigger irq bus; do
    [ ! -e "$root/proc/$shared" ] || mount -o bind,ro "$root/proc/$shared" "$root/proc/$shared"
done
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf bpf "$root/sys/fs/bpf"
mount -o remount,bind,ro "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<DEVICES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
DEVICES
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

cd "$root"
mkdir -p run/outside
pivot_root . run/outside
# Modules, the clock and raw memory are the machine's; systemd asks for none of them in a container.
exec chroot . sh -c '
    umount -l /run/outside && rmdir /run/outside &&
    exec env -i container=walk PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog,-wake_alarm \
        /lib/systemd/systemd --show-status=no
' </dev/null

# Runs a command in a root: $1 is the root, the rest the command. All mounts end with the namespace that this runs in.
root=$1
shift
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" env HOME=/root PATH="/root/.cargo/bin:$PATH" sh -euc 'cd /root/spip && exec "$@"' sh "$@"

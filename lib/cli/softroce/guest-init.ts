/**
 * Loaded in this order, each with what it depends on. The link needs crc32_generic, unasked; dummy
 * is for the kernel's own way inside, which finds no modules of this kernel in the user's files.
 */
export const guestModules = [
  'virtio_pci',
  'virtio_console',
  'virtio_net',
  '9p',
  '9pnet_virtio',
  'overlay',
  'crc32_generic',
  'ib_uverbs',
  'rdma_ucm',
  'rdma_rxe',
  'dummy',
] as const

/** Parameters of modules; dummy would make a network device unasked. */
export const guestModuleParameters: Readonly<Partial<Record<string, string>>> = {
  dummy: 'numdummies=0',
}

/** What the scripts below need of busybox. */
export const guestApplets = [
  'cat',
  'chroot',
  'hostname',
  'insmod',
  'ip',
  'kill',
  'ln',
  'mkdir',
  'mkfifo',
  'mount',
  'poweroff',
  'printf',
  'setsid',
  'sh',
  'sleep',
  'sync',
] as const

/** Names of the virtio-serial ports, in the order of the descriptors that QEMU gets for them. */
export const guestPorts = ['control', 'stdin', 'stdout', 'stderr'] as const
export type GuestPort = (typeof guestPorts)[number]

/** Where the program finds the folder that the launcher wrote for this guest. */
export const guestSpecFolder = '/run/pagemesh'

const mount9p = 'mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144'

/**
 * The first process of a guest. What differs from run to run comes in `setup.sh`, in the language
 * of the functions before it; the program itself in `program.sh`, which runs in the user's root.
 *
 * On the control port the host says `go` and `signal NAME`, and the guest `ready`, `failed WHY` and
 * `exit CODE`. When the host closes it, or is gone, the guest powers off.
 */
export const guestInit = `#!/bin/busybox sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module parameters; do insmod "/modules/$module" $parameters; done </modules/order

port() {
  for found in /sys/class/virtio-ports/*; do
    read -r name <"$found/name"
    if [ "$name" = "$1" ]; then echo "/dev/\${found##*/}"; return; fi
  done
}
control=$(port control)
if [ -z "$control" ]; then echo 'no control port'; poweroff -f; fi
exec 3<>"$control"
# Until the host is known to be there, a read ends at once.
until read -r line <&3; do sleep 0.02; done

fail() {
  echo "failed $*" >&3
  while :; do sleep 60; done
}
( while read -r what argument <&3; do
    if [ "$what" = signal ] && [ -s /io/pid ]; then
      kill -s "$argument" -- "-$(cat /io/pid)"
    elif [ "$what" = signal ]; then
      break
    fi
  done
  poweroff -f ) &

${mount9p},ro,cache=loose spec /spec || fail 'it cannot mount its description'
${mount9p},ro,cache=loose root /base || fail 'it cannot mount the root file system'
mount --bind /base /root

fresh() {
  if [ -d "/root$1" ]; then
    mount -t tmpfs -o "mode=$2" tmpfs "/root$1" || fail "it cannot mount $1"
  fi
}
overlays=0
overlay() {
  overlays=$((overlays + 1))
  layer=/layers/$overlays
  mkdir -p $layer/upper $layer/work
  mount -t overlay -o "lowerdir=/base$1,upperdir=$layer/upper,workdir=$layer/work" overlay \\
    "/root$1" || fail "it cannot make $1 writable"
}
as_on_host() {
  mkdir -p "/root$1"
  mount --bind "/base$1" "/root$1" || fail "it cannot show $1"
}
writable() {
  ${mount9p},rw,cache=mmap "$1" "/root$2" || fail "it cannot mount $2"
}
network() {
  ip link set lo up
  echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
  ip link set eth0 mtu "$3" && ip addr add "$1" dev eth0 && ip link set eth0 up ||
    fail 'it has no network device'
  chroot /root rdma link add rxe0 type rxe netdev eth0 || fail 'rdma link add does not work in it'
  ip -6 addr add "$2" dev eth0
}

mount -t tmpfs tmpfs /layers
mount --bind /dev /root/dev
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts -o ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
  ln -s "/proc/self/\${link#*:}" "/root/dev/\${link%%:*}"
done
. /spec/setup.sh
mkdir -p /root${guestSpecFolder}
mount --bind /spec /root${guestSpecFolder}

# Pipes between the program and the ports: a port can be opened once only, and takes short writes.
out() { port=$(port "$1")
  ( ( cat <"/io/$1" & echo $! >"/io/$1.pid"; wait ); printf %s "$end_mark" ) >"$port"; }
mkfifo /io/stdin /io/stdout /io/stderr
out stdout & stdout=$!
out stderr & stderr=$!
stdin=/dev/null
if [ "$has_stdin" = yes ]; then
  stdin=/io/stdin
  cat <"$(port stdin)" >/io/stdin &
fi
echo ready >&3
ulimit -n 65536
# The inner shell opens the pipes: here the end of a child could interrupt that.
setsid sh -c 'echo $$ >/io/pid
  exec chroot /root /bin/sh ${guestSpecFolder}/program.sh <"$1" >/io/stdout 2>/io/stderr 3>&-' \\
  program "$stdin"
status=$?
# What the program left behind may hold its output open for ever.
( sleep 1; kill -9 $(cat /io/stdout.pid /io/stderr.pid) ) 2>/dev/null &
wait $stdout $stderr
sync
echo "exit $status" >&3
while :; do sleep 60; done
`

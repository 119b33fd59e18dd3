# shellcheck shell=bash disable=SC2034 # for those who source it
# Functions and folders that the scripts beside this file share. Sourced, never run.

vm=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../parts/lib.sh
. "$vm/../parts/lib.sh"
# Beside the cache of the parts, in whose ways all is kept.
cache=${cache%/parts}/vm

log() { printf 'vm: %s\n' "$*" >&2; }

# In the order in which they must be loaded; ext4 and the rest that is needed are in the kernel itself.
modules=(
  drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev
  drivers/virtio/virtio_pci drivers/block/virtio_blk net/core/failover drivers/net/net_failover drivers/net/virtio_net
  fs/overlayfs/overlay
)

# What the machines are made of: kernel, modules and a static busybox.
base_folder() { printf '%s/base-%s\n' "$cache" "$({ printf '%s\n' "${modules[@]}" && cat "$vm/install"; } | digest)"; }

base() {
  local folder
  folder=$(base_folder)
  [ -d "$folder" ] || fail "the kernel is not installed here (expected $folder): run $vm/install"
  printf '%s\n' "$folder"
}

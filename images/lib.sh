# shellcheck shell=bash
# What the scripts beside this file share: the sources, their digest, and where things are kept. Sourced, never run.
# shellcheck source=../tests/parts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../tests/parts/lib.sh"
# shellcheck source=../tests/parts/installing.sh
. "$parts/installing.sh"
# Beside the cache of the parts.
cache=${cache%/parts}/images
repository=$(cd "$parts/../.." && pwd)

native_arch() {
  case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) fail "images are for amd64 and arm64, and this is $(uname -m)" ;;
  esac
}

triple_of() { # ARCH
  case $1 in
    amd64) echo x86_64-unknown-linux-gnu ;;
    arm64) echo aarch64-unknown-linux-gnu ;;
    *) fail "unknown architecture '$1': give amd64 or arm64" ;;
  esac
}

# gcc_for ARCH: the compiler of its C.
gcc_for() {
  local processor
  processor=$(triple_of "$1")
  processor=${processor%%-*}
  if [ "$processor" = "$(uname -m)" ]; then echo cc; else echo "$processor-linux-gnu-gcc"; fi
}

workspace_version() { sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml"; }

# source_date: seconds of the last commit, the time of everything in an image.
source_date() {
  if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
    echo "$SOURCE_DATE_EPOCH"
  else
    git -C "$repository" log -1 --format=%ct 2>/dev/null || fail "$repository is not a git repository: set SOURCE_DATE_EPOCH"
  fi
}

# files: all of the repository that are not ignored.
files() {
  local file
  { git -C "$repository" ls-files --cached --others --exclude-standard 2>/dev/null ||
    (cd "$repository" && find . -type f -not -path './target/*' -not -path '*/node_modules/*' -printf '%P\n'); } |
    while read -r file; do [ ! -f "$repository/$file" ] || printf '%s\n' "$file"; done
}

sums() { # FOLDER: of the files on stdin, those that exist
  (cd "$1" && xargs -d '\n' sha256sum 2>/dev/null || true) | LC_ALL=C sort
}

# snapshot FOLDER: makes it equal to this repository. A file that has not changed keeps its time, by which cargo knows what
# to build again: so a fresh clone costs no more than its changes.
snapshot() {
  local list=$1.files file
  mkdir -p "$1"
  files | LC_ALL=C sort >"$list"
  comm -13 "$list" <(cd "$1" && find . -type f -printf '%P\n' | LC_ALL=C sort) | while read -r file; do rm "$1/$file"; done
  # By tar, because cp --parents, once it has made a folder, takes each file outside folders for new, and fails.
  comm -23 <(sums "$repository" <"$list") <(sums "$1" <"$list") | cut -c 67- |
    tar --create --directory "$repository" --verbatim-files-from --files-from - |
    tar --extract --touch --no-same-owner --directory "$1"
}

# made_of FOLDER ARCH PROFILE PACKAGE…: digest of the sources in FOLDER that these packages are built from, and of the compilers.
made_of() {
  (
    cd "$1"
    local gcc packages=() package
    for package in "${@:4}"; do packages+=(--package "$package"); done
    gcc=$(gcc_for "$2")
    echo "$2 $3"
    rustc -vV
    "$gcc" --version
    sha256sum <"$("$gcc" -print-file-name=libc.a)"
    # Of the workspace, cargo names the folders.
    { printf '%s\n' Cargo.toml Cargo.lock rust-toolchain.toml images/compile &&
      cargo tree --quiet --locked --target "$(triple_of "$2")" --edges normal,build --prefix none --format '{p}' "${packages[@]}" |
      sed -n "s|.* (\($PWD/[^)]*\)).*|\1|p" | sort -u |
        while read -r package; do
          find "${package#"$PWD/"}" -type f -not -path '*/tests/*' -not -path '*/test/*' -not -path '*/node_modules/*'
        done; } | LC_ALL=C sort | xargs -d '\n' sha256sum
  ) | digest
}

# forget NAME KEPT: of the folders of the cache that are called so, all but the last used ones.
forget() {
  local old
  find "$cache" -maxdepth 1 -name "$1-*" -printf '%T@ %p\n' | sort -rn | tail -n "+$(($2 + 1))" | cut -d ' ' -f 2- |
    while read -r old; do rm -rf --one-file-system "$old"; done
}

# --- what images/install brings ---

CYCLONEDX_VERSION=0.5.9

cyclonedx() { printf '%s/cyclonedx-%s/bin/cargo-cyclonedx\n' "$cache" "$({ echo "$CYCLONEDX_VERSION" && rustc -vV; } | digest)"; }

busybox_for() { # ARCH
  if [ "$(gcc_for "$1")" = cc ]; then static_busybox; else printf '%s/busybox-%s/busybox\n' "$cache" "$1"; fi
}

busybox_version() { # ARCH
  if [ "$(gcc_for "$1")" = cc ]; then
    dpkg-query --show --showformat '${Version}' busybox-static
  else
    cat "$(dirname "$(busybox_for "$1")")/version"
  fi
}

#!/usr/bin/env bash
# From a fresh Debian 12 to a trained model, or to a finished test run. Safe to call again: what is there is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'EOF'
usage: ./bootstrap.sh quickstart [key=value ...]   install what is missing, build the program, train inputs/quickstart.toml
       ./bootstrap.sh test [ctest options]         the same set-up, then build everything and run all tests
       ./bootstrap.sh build                        install what is missing and build the program
       ./bootstrap.sh deps [package ...]           install what building and testing need, and the packages named
       ./bootstrap.sh packages                     print what building and testing need, for another Debian

KONCLAVE_CMAKE_ARGS holds further arguments of the configure step, as in "-DKONCLAVE_WERROR=ON".
EOF
}

program_packages=(
  g++ cmake ninja-build pkg-config git python3
  libtrilinos-kokkos-dev libtrilinos-kokkos-kernels-dev liblapack-dev # liblapack: Kokkos Kernels links it
  libopenmpi-dev openmpi-bin libhdf5-openmpi-dev
  libdnnl-dev ocl-icd-opencl-dev # OpenCL: asked for by oneDNN's CMake package
  libtomlplusplus-dev libcli11-dev libfmt-dev libspdlog-dev nlohmann-json3-dev libxxhash-dev libhwloc-dev
  fortunes # English text for the quickstart
)
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev librapidcheck-dev python3-h5py)

build=build/release
log=build/bootstrap-packages.log

say() { printf '==> %s\n' "$*"; }
die() {
  printf 'bootstrap: %s\n' "$*" >&2
  exit 1
}
minutes_since() { awk -v s=$((SECONDS - $1)) 'BEGIN { printf "%.1f min", s / 60 }'; }

# ---- packages -------------------------------------------------------------------------------------------------------

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Status} ' "$1" 2>/dev/null) == installed* ]]; }
has_candidate() { [[ $(LC_ALL=C apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }

# Asks for the password at most once, before anything is written to the log.
may_become_root() {
  [[ $(id -u) == 0 ]] && return
  command -v sudo >/dev/null || return
  sudo -n true 2>/dev/null || { [[ -t 0 ]] && sudo -v; }
}

apt_get() {
  local sudo=()
  [[ $(id -u) == 0 ]] || sudo=(sudo -n)
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -y -q --no-install-recommends \
    -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" >>"$log" 2>&1 </dev/null
}

install_packages() {
  local package missing=() unknown=()
  type -P apt-get dpkg-query >/dev/null ||
    die "this is no Debian-like system (no apt-get), so build by hand as README.md tells under \"On a cluster\"."
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then
    say "All $# packages are installed."
    return
  fi
  may_become_root ||
    die "these packages are missing, and without root or sudo they cannot be installed: ${missing[*]} (README.md, \"On a cluster\", builds without them)."

  local start=$SECONDS
  say "Installing ${#missing[@]} missing packages: ${missing[*]}"
  mkdir -p build
  : >"$log"
  apt_get update || say "apt-get update did not succeed ($log); trying with the package lists that are here."
  for package in "${missing[@]}"; do
    has_candidate "$package" || unknown+=("$package")
  done
  ((${#unknown[@]} == 0)) ||
    die "these packages cannot be had from this machine's package sources: ${unknown[*]} (Debian 12 has them in section main; see $log)."
  if ! apt_get install "${missing[@]}"; then
    tail -n 15 "$log" >&2
    die "apt-get could not install ${missing[*]}; the lines above are the end of $log."
  fi
  say "Packages installed in $(minutes_since "$start")."
}

# ---- build ----------------------------------------------------------------------------------------------------------

at_least() { printf '%s\n%s\n' "$1" "$2" | sort -V -C; } # at_least WANTED FOUND

check_tools() {
  local cmake gcc
  cmake=$(cmake --version | awk 'NR == 1 { print $3 }')
  at_least 3.25 "$cmake" || die "CMake 3.25 or later is needed, and $(command -v cmake) is $cmake."
  [[ -n ${CXX:-} ]] && return
  gcc=$(g++ -dumpfullversion)
  at_least 12 "$gcc" || die "g++ 12 or later is needed, and $(command -v g++) is $gcc; CXX may name another compiler."
}

cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt" 2>/dev/null || true; } # nothing when not configured yet

cpu_stamp() {
  grep -E '^(model name|flags|Features|CPU (implementer|part))[[:space:]]*:' /proc/cpuinfo | sort -u | sha256sum | cut -c 1-64
}

# Objects are compiled for the CPU they were made on, and a build folder may travel (image, network disk).
prepare_build_folder() {
  local stamp home
  stamp=$(cpu_stamp)
  home=$(cached CMAKE_HOME_DIRECTORY)
  if [[ -n $home && $home != "$PWD" ]]; then
    say "$build was made for $home; starting afresh."
    rm -rf "$build"
  elif [[ -f $build/CMakeCache.txt && $(cat "$build/cpu.stamp" 2>/dev/null) != "$stamp" ]]; then
    say "$build was not made for this CPU; rebuilding all objects."
    find "$build" -type f \( -name '*.o' -o -name '*.a' -o -name '*.gch' \) -delete
  fi
  mkdir -p "$build"
  echo "$stamp" >"$build/cpu.stamp"
}

# As many compilers as there are cores, but not more than memory has room for (about 1.5 GiB each).
jobs() {
  local cores memory
  cores=$(env -u OMP_NUM_THREADS nproc)
  memory=$(awk '/^MemAvailable/ { print int($2 / 1572864) }' /proc/meminfo)
  ((memory < 1)) && memory=1
  echo $((cores < memory ? cores : memory))
}

configure() { # configure ON|OFF: with the tests or not
  say "Configuring preset release in $build (tests: $1)."
  # shellcheck disable=SC2086  # the arguments are meant to split
  cmake --preset release -DKONCLAVE_NATIVE=ON -DKONCLAVE_TESTS="$1" ${KONCLAVE_CMAKE_ARGS:-} ||
    die "the configure step failed; the message above says what it missed."
}

compile() { # compile [--target T]
  local start=$SECONDS
  say "Building with $(jobs) jobs."
  cmake --build --preset release --parallel "$(jobs)" "$@" || die "the build failed; the first error above is the one to read."
  say "Built in $(minutes_since "$start")."
}

build_program() {
  install_packages "${program_packages[@]}"
  check_tools
  prepare_build_folder
  local tests
  tests=$(cached KONCLAVE_TESTS) # a tree that has tests keeps them: nothing is built twice
  configure "${tests:-OFF}"
  compile --target konclave
}

build_all() {
  install_packages "${program_packages[@]}" "${test_packages[@]}"
  check_tools
  prepare_build_folder
  configure ON
  compile
}

# ---- run ------------------------------------------------------------------------------------------------------------

# Open MPI refuses root, and more ranks than cores, unless told otherwise. The program never tells it: that is the caller's affair.
allow_open_mpi() {
  if [[ $(id -u) == 0 ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  export OMPI_MCA_rmaps_base_oversubscribe=${OMPI_MCA_rmaps_base_oversubscribe:-1}
  export PRTE_MCA_rmaps_default_mapping_policy=${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}
}

quickstart() {
  local start=$SECONDS code=0
  build_program
  allow_open_mpi
  local command=("$build/konclave" train inputs/quickstart.toml "$@")
  if (($(nproc) > 1)); then
    # Two ranks that share the experts. Behind mpirun no rank sees the terminal.
    command=(mpirun -n 2 "${command[@]}")
    [[ $* == *parallel.ep=* ]] || command+=(parallel.ep=2)
    [[ $* == *log.progress=* || ! -t 1 ]] || command+=(log.progress=bar)
  fi
  say "Training: ${command[*]}"
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "${command[@]}" || code=$?
  case $code in
    0) say "Done in $(minutes_since "$start"). The run is in runs/quickstart, its curves in runs/quickstart/report.html; the program is $build/konclave." ;;
    75) say "Stopped with a checkpoint in runs/quickstart; the same command goes on from there." ;;
    *) say "Training ended with exit code $code; the message above says why." >&2 ;;
  esac
  return $code
}

run_tests() {
  local start=$SECONDS
  build_all
  allow_open_mpi
  local tests=$SECONDS cores
  cores=$(nproc)
  say "Running the tests."
  ctest --preset release --output-on-failure --no-tests=error -j "$((cores > 2 ? cores : 2))" "$@" ||
    die "tests failed after $(minutes_since "$tests"); the list above names them."
  say "All tests passed in $(minutes_since "$tests"), $(minutes_since "$start") with the set-up."
}

main() {
  local command=${1:-}
  shift || true
  case $command in
    quickstart) quickstart "$@" ;;
    test) run_tests "$@" ;;
    build) build_program ;;
    deps) install_packages "${program_packages[@]}" "${test_packages[@]}" "$@" ;;
    packages) printf '%s\n' "${program_packages[@]}" "${test_packages[@]}" ;;
    -h | --help | help) usage ;;
    *)
      usage >&2
      exit 64
      ;;
  esac
}

main "$@"

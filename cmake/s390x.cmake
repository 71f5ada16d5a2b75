# A big-endian machine on any other: Debian's cross compiler, and qemu's user mode to run what it builds.
#   cmake -S . -B build/s390x --toolchain cmake/s390x.cmake && cmake --build build/s390x && ctest --test-dir build/s390x
# Needs the packages g++-s390x-linux-gnu and qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR s390x)
set(CMAKE_CXX_COMPILER s390x-linux-gnu-g++)

set(s390x_root /usr/s390x-linux-gnu)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-s390x -L ${s390x_root})

# Libraries of the machine that compiles are not for the one that runs.
set(CMAKE_FIND_ROOT_PATH ${s390x_root})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)

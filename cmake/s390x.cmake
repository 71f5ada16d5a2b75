# A big-endian machine on any other: Debian's cross compiler, and qemu's user mode to run what it builds.
#   cmake -S . -B build/s390x --toolchain cmake/s390x.cmake && cmake --build build/s390x && ctest --test-dir build/s390x
# Needs the packages g++-s390x-linux-gnu and qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR s390x)
set(CMAKE_CXX_COMPILER s390x-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-s390x)

# Static, so that the programs need no s390x system around them.
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)

# Libraries of the machine that compiles are not for the one that runs.
set(CMAKE_FIND_ROOT_PATH /usr/s390x-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)

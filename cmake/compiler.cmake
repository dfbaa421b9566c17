# Flags common to all of our own targets, carried by one INTERFACE library.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12)
  message(FATAL_ERROR "Konclave needs g++ 12 or later (this is ${CMAKE_CXX_COMPILER_VERSION})")
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 16)
  message(FATAL_ERROR "Konclave needs clang 16 or later (this is ${CMAKE_CXX_COMPILER_VERSION})")
endif()

add_library(konclave_flags INTERFACE)
add_library(Konclave::flags ALIAS konclave_flags)
set_target_properties(konclave_flags PROPERTIES EXPORT_NAME flags)
target_compile_features(konclave_flags INTERFACE cxx_std_20)

# Private to our targets: a user's code decides about its own warnings and its own CPU.
set(KONCLAVE_PRIVATE_FLAGS -Wall -Wextra -Wpedantic -Wshadow)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 warns falsely of overlapping copies in std::string concatenation (GCC bug 105651).
  list(APPEND KONCLAVE_PRIVATE_FLAGS -Wno-restrict)
endif()
if(KONCLAVE_WERROR)
  list(APPEND KONCLAVE_PRIVATE_FLAGS -Werror)
endif()
# Sums keep their order (no -ffast-math); errno of math functions is never read.
list(APPEND KONCLAVE_PRIVATE_FLAGS -fno-math-errno -ffp-contract=fast)
# g++ 12.2 with AVX-512 writes {2, 2, 0, 0} as 2, 2, 2, 2 when it makes a vector of such constants; g++ 16 does not.
set(KONCLAVE_AVX512_FLAGS)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  set(KONCLAVE_AVX512_FLAGS -fno-tree-slp-vectorize)
endif()
if(KONCLAVE_NATIVE)
  list(APPEND KONCLAVE_PRIVATE_FLAGS -march=native ${KONCLAVE_AVX512_FLAGS})
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND KONCLAVE_PRIVATE_FLAGS -march=x86-64-v3)
endif()
if(KONCLAVE_SANITIZE)
  list(JOIN KONCLAVE_SANITIZE "," _sanitizers)
  list(APPEND KONCLAVE_PRIVATE_FLAGS -fsanitize=${_sanitizers} -fno-omit-frame-pointer
       -fno-sanitize-recover=undefined)
  if(KONCLAVE_SANITIZE MATCHES "address.*undefined")
    # These look at each access, and take a third of the compile time. What they find, address finds,
    # but for alignment and wrong types of objects.
    list(APPEND KONCLAVE_PRIVATE_FLAGS -fno-sanitize=null,alignment,object-size,pointer-overflow,vptr)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Functions with more accesses, which are those of tests and not of kernels, call for their checks.
    list(APPEND KONCLAVE_PRIVATE_FLAGS --param=asan-instrumentation-with-call-threshold=30)
  endif()
  add_link_options(-fsanitize=${_sanitizers})
endif()

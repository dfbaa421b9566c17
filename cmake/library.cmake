# konclave_library(NAME [NO_PRECOMPILED] SOURCES ... [DEPENDS ...] [PRIVATE_DEPENDS ...])
# One static library per folder, Konclave::NAME, whose link interface repeats the rules of
# dependency. Sources are compiled with a precompiled header of Kokkos and std; what does not depend
# on Kokkos has neither its include folders nor its flags, and says NO_PRECOMPILED.
function(konclave_library name)
  cmake_parse_arguments(ARG "NO_PRECOMPILED" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  set(target konclave_${name})
  add_library(${target} STATIC ${ARG_SOURCES})
  add_library(Konclave::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name} POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/backends>
    $<INSTALL_INTERFACE:include/konclave>)
  target_link_libraries(${target} PUBLIC konclave_flags ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE_DEPENDS})
  target_compile_options(${target} PRIVATE ${KONCLAVE_PRIVATE_FLAGS})
  if(ARG_NO_PRECOMPILED)
    target_compile_options(${target} PRIVATE ${KONCLAVE_HOST_ONLY})
  endif()
  set_property(GLOBAL APPEND PROPERTY KONCLAVE_LIBRARIES ${target})
  if(name STREQUAL "tensor")
    target_precompile_headers(${target} PRIVATE ${PROJECT_SOURCE_DIR}/cmake/precompiled.hpp)
  elseif(NOT ARG_NO_PRECOMPILED)
    target_precompile_headers(${target} REUSE_FROM konclave_tensor)
  endif()
endfunction()

# Lets an executable use the precompiled header of the libraries, which is position-independent.
function(konclave_use_precompiled target)
  target_compile_options(${target} PRIVATE -fPIC)
  target_precompile_headers(${target} REUSE_FROM konclave_tensor)
endfunction()

# A backend is a folder under backends/ that defines konclave::NAME::offer(OpTable&). The list of
# calls is generated, in order of preference, so that src never names one.
function(konclave_add_backends)
  list(REMOVE_ITEM KONCLAVE_BACKENDS reference)
  list(APPEND KONCLAVE_BACKENDS reference)
  set(KONCLAVE_BACKENDS ${KONCLAVE_BACKENDS} PARENT_SCOPE)
  set(declarations "")
  set(calls "")
  set(libraries "")
  foreach(backend IN LISTS KONCLAVE_BACKENDS)
    add_subdirectory(${PROJECT_SOURCE_DIR}/backends/${backend})
    string(APPEND declarations "namespace konclave::${backend} {\nvoid offer(OpTable& table);\n}\n")
    string(APPEND calls "  ${backend}::offer(table);\n")
    list(APPEND libraries konclave_${backend})
  endforeach()
  configure_file(${PROJECT_SOURCE_DIR}/cmake/backend_list.cpp.in
                 ${PROJECT_BINARY_DIR}/generated/backend_list.cpp @ONLY)
  konclave_library(backends SOURCES ${PROJECT_BINARY_DIR}/generated/backend_list.cpp
    DEPENDS konclave_ops PRIVATE_DEPENDS ${libraries})
endfunction()

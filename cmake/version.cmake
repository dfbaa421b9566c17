find_package(Git QUIET)
set(KONCLAVE_REVISION "unknown")
if(Git_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --tags
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE _revision
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE _status)
  if(_status EQUAL 0)
    set(KONCLAVE_REVISION "${_revision}")
  endif()
endif()
list(JOIN KONCLAVE_PRIVATE_FLAGS " " _flags)
set(KONCLAVE_BUILD_DESCRIPTION
    "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}, ${CMAKE_BUILD_TYPE}, ${_flags}")
set(KONCLAVE_CHECKS false)
if(KONCLAVE_CHECK_COLLECTIVES)
  set(KONCLAVE_CHECKS true)
endif()
configure_file(cmake/version.cpp.in ${PROJECT_BINARY_DIR}/generated/version.cpp @ONLY)

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(_libraries GLOBAL PROPERTY KONCLAVE_LIBRARIES)
install(TARGETS ${_libraries} konclave_flags konclave_xxhash konclave_hwloc EXPORT KonclaveTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS konclave_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY src/ DESTINATION include/konclave FILES_MATCHING PATTERN "*.hpp"
  PATTERN app EXCLUDE)
install(DIRECTORY checkpoints DESTINATION include/konclave FILES_MATCHING PATTERN "*.hpp")
install(EXPORT KonclaveTargets NAMESPACE Konclave:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Konclave)
configure_package_config_file(cmake/KonclaveConfig.cmake.in
  ${PROJECT_BINARY_DIR}/KonclaveConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Konclave)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/KonclaveConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/KonclaveConfig.cmake
  ${PROJECT_BINARY_DIR}/KonclaveConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Konclave)

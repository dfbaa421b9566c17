find_package(GTest REQUIRED)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

# A Python that has h5py, where there is one.
set(KONCLAVE_PYTHON_H5PY ${Python3_EXECUTABLE})
foreach(candidate ${Python3_EXECUTABLE} /usr/bin/python3)
  execute_process(COMMAND ${candidate} -c "import h5py" RESULT_VARIABLE status OUTPUT_QUIET ERROR_QUIET)
  if(status EQUAL 0)
    set(KONCLAVE_PYTHON_H5PY ${candidate})
    break()
  endif()
endforeach()

set(KONCLAVE_TEST_THREADS 1 CACHE STRING "Threads of each rank of a test, where Kokkos has threads")

# What tests run with: these threads, and an Open MPI that may run as root and oversubscribe.
set(KONCLAVE_TEST_ENVIRONMENT
  "OMP_NUM_THREADS=${KONCLAVE_TEST_THREADS};OMP_PROC_BIND=false;OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_rmaps_base_oversubscribe=1;OMPI_MCA_mpi_yield_when_idle=1;OMPI_MCA_hwloc_base_binding_policy=none;PRTE_MCA_hwloc_default_binding_policy=none;PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe;ASAN_OPTIONS=detect_leaks=0")

function(konclave_label_test label target)
  if(NOT TARGET tests_${label})
    add_custom_target(tests_${label})
  endif()
  add_dependencies(tests_${label} ${target})
endfunction()

# konclave_add_test(NAME SOURCES ... [LIBRARIES ...] [RANKS 1 2 3] [LABELS ...] [TIMEOUT s])
# One GoogleTest binary; registered as NAME.npN for each N of RANKS. Target tests_LABEL builds all
# of a label.
function(konclave_add_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LIBRARIES;RANKS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(NOT ARG_RANKS)
    set(ARG_RANKS 1)
  endif()
  string(REPLACE "." "_" target ${name})
  add_executable(${target} ${ARG_SOURCES})
  set_target_properties(${target} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/test_binaries)
  target_link_libraries(${target} PRIVATE konclave_test_support ${ARG_LIBRARIES})
  target_compile_options(${target} PRIVATE ${KONCLAVE_PRIVATE_FLAGS})
  konclave_use_precompiled(${target})
  foreach(label IN LISTS ARG_LABELS)
    konclave_label_test(${label} ${target})
  endforeach()
  foreach(ranks IN LISTS ARG_RANKS)
    if(ranks EQUAL 1)
      set(command $<TARGET_FILE:${target}>)
    else()
      set(command ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} ${MPIEXEC_PREFLAGS}
          $<TARGET_FILE:${target}> ${MPIEXEC_POSTFLAGS})
    endif()
    add_test(NAME ${name}.np${ranks} COMMAND ${command})
    set_tests_properties(${name}.np${ranks} PROPERTIES LABELS "${ARG_LABELS}"
      TIMEOUT ${ARG_TIMEOUT} PROCESSORS ${ranks} ENVIRONMENT "${KONCLAVE_TEST_ENVIRONMENT}")
  endforeach()
endfunction()

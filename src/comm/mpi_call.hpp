#pragma once

#include <mpi.h>

#include <cstdint>
#include <string_view>

namespace konclave {

/// Throws Error when an MPI function did not return MPI_SUCCESS; `call` and `group` name what
/// failed and for whom, followed by MPI's own words. Handles need MPI_ERRORS_RETURN to get here.
void check_mpi(int status, std::string_view call, std::string_view group);

/// Whether a wait for `request` would return at once; MPI gets on with what is under way.
bool is_done(MPI_Request request, std::string_view group);

/// `value` as MPI wants its counts. Throws Error naming `what` and `group` when it is negative or
/// does not fit in an int.
int to_mpi_count(std::int64_t value, std::string_view what, std::string_view group);

}  // namespace konclave

#include "comm/mpi_call.hpp"

#include "base/error.hpp"

#include <limits>
#include <string>

namespace konclave {

void check_mpi(int status, std::string_view call, std::string_view group) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail(std::string(call) + " of group '" + std::string(group) +
       "' failed: " + std::string(text, static_cast<std::size_t>(length)));
}

bool is_done(MPI_Request request, std::string_view group) {
  int done = 0;
  check_mpi(MPI_Request_get_status(request, &done, MPI_STATUS_IGNORE), "MPI_Request_get_status",
            group);
  return done != 0;
}

int to_mpi_count(std::int64_t value, std::string_view what, std::string_view group) {
  require(value >= 0 && value <= std::numeric_limits<int>::max(),
          "group '" + std::string(group) + "': " + std::string(what) + " is " +
              std::to_string(value) + ", MPI takes 0 to 2147483647");
  return static_cast<int>(value);
}

}  // namespace konclave

#include "comm/mpi_row_type.hpp"

#include "base/error.hpp"
#include "comm/mpi_call.hpp"

namespace konclave {

MpiType::MpiType(const AnyIn& view, const std::string& group) {
  require(view.rank() > 0, "group '" + group + "': a tensor without a shape cannot be sent");
  const auto bytes = static_cast<std::int64_t>(row_bytes(view));
  check_mpi(MPI_Type_contiguous(to_mpi_count(bytes, "bytes of a row", group), MPI_BYTE, &handle_),
            "MPI_Type_contiguous", group);
  check_mpi(MPI_Type_commit(&handle_), "MPI_Type_commit", group);
}

MpiType::MpiType(const MpiType& row, const std::vector<RowBlock>& blocks,
                 const std::string& group) {
  std::vector<int> rows, offsets;
  for (const RowBlock& block : blocks) {
    rows.push_back(to_mpi_count(block.rows, "a count of rows", group));
    offsets.push_back(to_mpi_count(block.first, "an offset in rows", group));
  }
  const int count = to_mpi_count(static_cast<std::int64_t>(blocks.size()), "blocks", group);
  check_mpi(MPI_Type_indexed(count, rows.data(), offsets.data(), row.get(), &handle_),
            "MPI_Type_indexed", group);
  check_mpi(MPI_Type_commit(&handle_), "MPI_Type_commit", group);
}

int MpiType::count_of(const MPI_Status& status, const std::string& group) const {
  int count = 0;
  check_mpi(MPI_Get_count(&status, handle_, &count), "MPI_Get_count", group);
  return count;
}

}  // namespace konclave

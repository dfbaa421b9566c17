#pragma once

#include "comm/row_blocks.hpp"

#include <mpi.h>

#include <string>
#include <vector>

namespace konclave {

/// An MPI datatype. MPI keeps what operations under way need, so it may end after their start.
class MpiType {
 public:
  /// One row of a view. Counting rows and not bytes keeps counts and offsets far below the limit of
  /// an int.
  MpiType(const AnyIn& view, const std::string& group);
  /// Blocks of rows, from the first row of the view on.
  MpiType(const MpiType& row, const std::vector<RowBlock>& blocks, const std::string& group);
  ~MpiType() { MPI_Type_free(&handle_); }
  MpiType(const MpiType&) = delete;
  MpiType& operator=(const MpiType&) = delete;

  MPI_Datatype get() const { return handle_; }
  /// How many of these a message has that has arrived.
  int count_of(const MPI_Status& status, const std::string& group) const;

 private:
  MPI_Datatype handle_ = MPI_DATATYPE_NULL;
};

}  // namespace konclave

#pragma once

#include "comm/mpi_transport.hpp"
#include "tensor/arena.hpp"
#include "tensor/host_copy.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace konclave {

/// With the parameter, tensors pass through host buffers, as for the memory of a GPU.
class TransportCase : public ::testing::TestWithParam<bool> {
 protected:
  /// A view of shape (rows, columns) with value first + i at element i.
  AnyView filled(DType type, std::int64_t rows, std::int64_t columns, double first) {
    const AnyView view = arena_.make(type, rows, columns);
    std::vector<double> values(static_cast<std::size_t>(view.size()));
    std::iota(values.begin(), values.end(), first);
    from_doubles(exec_, values, view);
    return view;
  }
  std::vector<double> values(const AnyIn& view) { return to_doubles(exec_, view); }

  MemoryAccount account_;
  Arena arena_{account_, MemoryClass::buffers, "test"};
  ExecSpace exec_;
  MpiTransport transport_{Communicator::world(), GetParam()};
  const int rank_ = transport_.rank(), size_ = transport_.size();
};

}  // namespace konclave

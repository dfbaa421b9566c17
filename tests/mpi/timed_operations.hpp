#pragma once

#include "ops/backend_list.hpp"
#include "tests/support/delayed_transport.hpp"

#include <algorithm>
#include <cstdint>

namespace konclave {

/// What products and attention take of a virtual time, each as long as its operations say: offers
/// are plain functions, and write it here.
struct VirtualWork {
  static constexpr double kOperationsPerSecond = 1e9;

  VirtualClock* clock = nullptr;
  double sequence_length = 0;
  double forward = 0, backward = 0, longest = 0;  ///< seconds in all, and of one product

  void take(double operations, bool is_forward) {
    const double seconds = operations / kOperationsPerSecond;
    clock->advance(seconds);
    (is_forward ? forward : backward) += seconds;
    longest = std::max(longest, seconds);
  }
};
inline VirtualWork virtual_work;

/// The offers of `reference`, which take their time.
inline OpTable timed_table() {
  static GemmOffer gemm;
  static GroupedGemmOffer grouped_gemm;
  static AttentionOffer attention;
  const OpTable built = built_backends();
  gemm = built.gemm.back();
  grouped_gemm = built.grouped_gemm.back();
  attention = built.attention.back();
  static constexpr auto kOperations = [](const GemmShape& shape, const AnyIn& rows) {
    return 2.0 * static_cast<double>(rows.extent(0)) * shape.out * shape.in;
  };
  OpTable table;
  table.gemm = {gemm};
  table.gemm[0].run = [](const ExecSpace& exec, const GemmShape& shape, const GemmOperands& with) {
    gemm.run(exec, shape, with);
    virtual_work.take(kOperations(shape, with.a), shape.kind == GemmKind::forward);
  };
  table.grouped_gemm = {grouped_gemm};
  table.grouped_gemm[0].run = [](const ExecSpace& exec, const GroupedGemmShape& shape,
                                 const GroupedGemmOperands& with) {
    grouped_gemm.run(exec, shape, with);
    virtual_work.take(kOperations(shape.each, with.a), shape.each.kind == GemmKind::forward);
  };
  table.attention = {attention};
  table.attention[0].forward = [](const ExecSpace& exec, const AttentionShape& shape,
                                  const AttentionForward& call) {
    attention.forward(exec, shape, call);
    virtual_work.take(4.0 * static_cast<double>(call.q.size()) * virtual_work.sequence_length,
                      true);
  };
  table.attention[0].backward = [](const ExecSpace& exec, const AttentionShape& shape,
                                   const AttentionBackward& call) {
    attention.backward(exec, shape, call);
    virtual_work.take(10.0 * static_cast<double>(call.q.size()) * virtual_work.sequence_length,
                      false);
  };
  return table;
}

}  // namespace konclave

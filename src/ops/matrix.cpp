#include "ops/matrix.hpp"

#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

template <typename From, typename To>
void check_extents(const Matrix<From>& from, const Matrix<To>& to) {
  require(from.rows == to.rows && from.columns == to.columns,
          "matrices to convert differ in their extents");
}

}  // namespace

void widen(const ExecSpace& exec, Matrix<const Bf16> from, Matrix<float> to) {
  check_extents(from, to);
  if (to.empty()) return;
  Kokkos::parallel_for(
      "konclave::ops::widen", row_policy(exec, to.rows), KOKKOS_LAMBDA(const RowMember& team) {
        const Bf16* in = from.data + team.league_rank() * from.stride;
        float* out = to.data + team.league_rank() * to.stride;
        row_for(team, to.columns, [=](std::int64_t j) { out[j] = static_cast<float>(in[j]); });
      });
}

void round(const ExecSpace& exec, Matrix<const float> from, Matrix<Bf16> to, bool accumulate) {
  check_extents(from, to);
  if (to.empty()) return;
  Kokkos::parallel_for(
      "konclave::ops::round", row_policy(exec, to.rows), KOKKOS_LAMBDA(const RowMember& team) {
        const float* in = from.data + team.league_rank() * from.stride;
        Bf16* out = to.data + team.league_rank() * to.stride;
        if (accumulate) {
          row_for(team, to.columns, [=](std::int64_t j) { out[j] = Bf16(float(out[j]) + in[j]); });
        } else {
          row_for(team, to.columns, [=](std::int64_t j) { out[j] = Bf16(in[j]); });
        }
      });
}

template <typename A> void set_zero(const ExecSpace& exec, Matrix<A> to) {
  if (to.empty()) return;
  Kokkos::parallel_for(
      "konclave::ops::set_zero", row_policy(exec, to.rows), KOKKOS_LAMBDA(const RowMember& team) {
        A* out = to.data + team.league_rank() * to.stride;
        row_for(team, to.columns, [=](std::int64_t j) { out[j] = 0; });
      });
}

template void set_zero(const ExecSpace&, Matrix<float>);
template void set_zero(const ExecSpace&, Matrix<double>);

}  // namespace konclave::ops

#include "ops/permute.hpp"

#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

// Tokens are cut into chunks that count on their own; their counts then become starting rows.
constexpr std::int64_t kChunk = 256;

constexpr std::int64_t kIndexBytes = sizeof(int);

std::int64_t bytes_of_row(std::int64_t hidden, DType type) {
  return hidden * static_cast<std::int64_t>(size_of(type));
}

std::int64_t chunks_of(std::int64_t tokens) { return (tokens + kChunk - 1) / kChunk; }

void count_chunks(const ExecSpace& exec, View1<const int> experts, View1<const int> token_offsets,
                  std::int64_t tokens, View2<int> counts) {
  const int num_experts = counts.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::permutation_count", Range(exec, 0, counts.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t chunk) {
        const std::int64_t first = chunk * kChunk;
        const std::int64_t last = first + kChunk < tokens ? first + kChunk : tokens;
        for (int e = 0; e < num_experts; ++e) counts(chunk, e) = 0;
        for (int a = token_offsets(first); a < token_offsets(last); ++a) {
          ++counts(chunk, experts(a));
        }
      });
}

/// Turns counts into the first row of each chunk within its expert, and totals into offsets.
void scan_chunks(const ExecSpace& exec, View2<int> counts, View1<int> expert_offsets) {
  const int chunks = counts.extent_int(0), num_experts = counts.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::permutation_scan", Range(exec, 0, num_experts),
      KOKKOS_LAMBDA(const std::int64_t e) {
        int total = 0;
        for (int chunk = 0; chunk < chunks; ++chunk) {
          const int count = counts(chunk, e);
          counts(chunk, e) = total;
          total += count;
        }
        expert_offsets(e + 1) = total;
      });
  Kokkos::parallel_for(
      "konclave::ops::permutation_offsets", Range(exec, 0, 1), KOKKOS_LAMBDA(const std::int64_t) {
        expert_offsets(0) = 0;
        for (int e = 0; e < num_experts; ++e) expert_offsets(e + 1) += expert_offsets(e);
      });
}

void place_rows(const ExecSpace& exec, View1<const int> experts, View1<const int> token_offsets,
                std::int64_t tokens, View2<int> counts, Permutation out) {
  const bool has_inverse = out.assignment_of.size() > 0;
  Kokkos::parallel_for(
      "konclave::ops::permutation_place", Range(exec, 0, counts.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t chunk) {
        const std::int64_t first = chunk * kChunk;
        const std::int64_t last = first + kChunk < tokens ? first + kChunk : tokens;
        for (std::int64_t t = first; t < last; ++t) {
          for (int a = token_offsets(t); a < token_offsets(t + 1); ++a) {
            const int e = experts(a);
            const int row = out.expert_offsets(e) + counts(chunk, e)++;
            out.row_of(a) = row;
            if (has_inverse) out.assignment_of(row) = a;
          }
        }
      });
}

/// RowPlaces in a kernel.
struct PlaceOf {
  const int *row_of, *experts, *shift;

  explicit PlaceOf(const RowPlaces& places)
      : row_of(places.row_of.data()),
        experts(places.shift.size() == 0 ? nullptr : places.experts.data()),
        shift(places.shift.data()) {}

  KOKKOS_INLINE_FUNCTION int operator()(int a) const {
    return experts == nullptr ? row_of[a] : row_of[a] + shift[experts[a]];
  }
};

/// RowTarget of a type; no memory: no values.
template <typename X> struct TypedTarget {
  int first, count;
  X* rows;
  Accum<X>* values;

  TypedTarget(std::int64_t from, const AnyView& y, const AnyView& of_rows)
      : first(static_cast<int>(from)),
        count(y.empty() ? 0 : static_cast<int>(y.extent(0))),
        rows(y.empty() ? nullptr : y.as2<X>().data()),
        values(of_rows.empty() ? nullptr : of_rows.as1<Accum<X>>().data()) {}

  KOKKOS_INLINE_FUNCTION bool has(int place) const {
    return place >= first && place - first < count;
  }
};

template <typename X>
void permute_kernel(const ExecSpace& exec, View2<const X> x, View1<const int> token_offsets,
                    PlaceOf place_of, TypedTarget<X> one, TypedTarget<X> other,
                    const Accum<X>* values) {
  const std::int64_t hidden = x.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::permute_rows", row_policy(exec, x.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank();
        for (int a = token_offsets(t); a < token_offsets(t + 1); ++a) {
          const int place = place_of(a);
          if (!one.has(place) && !other.has(place)) continue;
          const TypedTarget<X>& to = one.has(place) ? one : other;
          const int row = place - to.first;
          row_copy(team, hidden, &x(t, 0), to.rows + row * hidden);
          if (to.values == nullptr) continue;
          Kokkos::single(Kokkos::PerTeam(team), [&] { to.values[row] = values[a]; });
        }
      });
}

template <typename X>
void combine_kernel(const ExecSpace& exec, View2<const X> x, View1<const int> token_offsets,
                    PlaceOf place_of, int assignments, const X* residual, View2<X> y,
                    const Accum<X>* values, Accum<X>* of_assignments) {
  using A = Accum<X>;
  const std::int64_t hidden = y.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::combine_rows", row_policy(exec, y.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const std::int64_t t = team.league_rank();
        const int first = token_offsets(t), last = token_offsets(t + 1);
        const X* pass = residual == nullptr ? nullptr : residual + t * hidden;
        X* out = &y(t, 0);
        // Rows of the next token are far from those of this one: asked for before they are wanted.
        const int ahead = last + (last - first) <= assignments ? last - first : 0;
        row_tiles(team, hidden, [&](auto tile, std::int64_t h) {
          A sum[tile] = {};
          for (int a = first; a < last; ++a) {
            const X* row = &x(place_of(a), h);
            prefetch(&x(place_of(a + ahead), h));
            for (int l = 0; l < tile; ++l) sum[l] += A(row[l]);
          }
          if (pass != nullptr) {
            for (int l = 0; l < tile; ++l) sum[l] += A(pass[h + l]);
          }
          for (int l = 0; l < tile; ++l) out[h + l] = X(sum[l]);
        });
        if (of_assignments == nullptr) return;
        row_for(team, last - first, [&](std::int64_t i) {
          const int a = first + static_cast<int>(i);
          of_assignments[a] = values[place_of(a)];
        });
      });
}

template <typename A>
void gather_values_kernel(const ExecSpace& exec, View1<const A> x, View1<const int> source,
                          View1<A> y) {
  Kokkos::parallel_for(
      "konclave::ops::gather_values", Range(exec, 0, static_cast<std::int64_t>(y.size())),
      KOKKOS_LAMBDA(const std::int64_t i) { y(i) = x(source(i)); });
}

}  // namespace

std::int64_t permutation_scratch(std::int64_t tokens, int experts) {
  return chunks_of(tokens) * experts;
}

void permutation(const ExecSpace& exec, const View1<const int>& experts,
                 const View1<const int>& token_offsets, const View1<int>& scratch,
                 const Permutation& out) {
  const std::int64_t tokens = static_cast<std::int64_t>(token_offsets.size()) - 1;
  const int num_experts = static_cast<int>(out.expert_offsets.size()) - 1;
  require(tokens >= 0 && num_experts >= 1 && out.row_of.size() == experts.size() &&
              (out.assignment_of.size() == 0 || out.assignment_of.size() == experts.size()) &&
              static_cast<std::int64_t>(scratch.size()) >= permutation_scratch(tokens, num_experts),
          "permutation: want experts, row_of (A), assignment_of (A) or empty, token_offsets (T+1), "
          "expert_offsets (E+1)");
  const View2<int> counts(scratch.data(), static_cast<std::size_t>(chunks_of(tokens)),
                          static_cast<std::size_t>(num_experts));
  count_chunks(exec, experts, token_offsets, tokens, counts);
  scan_chunks(exec, counts, out.expert_offsets);
  place_rows(exec, experts, token_offsets, tokens, counts, out);
}

std::int64_t permutation_bytes(std::int64_t tokens, std::int64_t assignments, int experts) {
  const std::int64_t ids = assignments * kIndexBytes, tables = (tokens + experts + 2) * kIndexBytes;
  const std::int64_t counts = permutation_scratch(tokens, experts) * kIndexBytes;
  // Counts are written, scanned in place, and used up in place.
  const std::int64_t again = (ids > kNearBytes ? ids : 0) + (counts > kNearBytes ? 5 * counts : 0);
  return 2 * ids + tables + again;
}

std::int64_t permute_bytes(std::int64_t tokens, std::int64_t assignments, std::int64_t hidden,
                           DType type, PermuteExtras with) {
  const auto value = static_cast<std::int64_t>(size_of(accum_type(type)));
  return (assignments + tokens) * (bytes_of_row(hidden, type) + kIndexBytes) + kIndexBytes +
         (with.values ? 2 * assignments * value : 0) +
         (with.shifts ? assignments * kIndexBytes : 0);
}

namespace {

bool are_places(const RowPlaces& places) {
  return places.shift.size() == 0 || places.experts.size() == places.row_of.size();
}

/// Rows of y, and a value for each of them or none.
bool is_target(const AnyView& y, const AnyView& values, const AnyIn& x) {
  return y.empty() || (y.type() == x.type() && y.extent(1) == x.extent(1) &&
                       (values.empty() || values.size() == y.extent(0)));
}

}  // namespace

void permute_rows(const ExecSpace& exec, const AnyIn& x, const View1<const int>& token_offsets,
                  const RowPlaces& places, std::int64_t first, const AnyView& y,
                  const RowValues& values, const RowTarget& other) {
  const bool has_values = !values.to.empty() || !other.values.empty();
  require(
      is_target(y, values.to, x) && is_target(other.rows, other.values, x) && are_places(places) &&
          static_cast<std::int64_t>(token_offsets.size()) == x.extent(0) + 1 &&
          (!has_values || values.from.size() == places.assignments()),
      "permute_rows: want x (T,H), token_offsets (T+1), places (A), y (R,H), values (A) to (R)");
  if (y.empty() && other.rows.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    const Accum<X>* from = has_values ? values.from.as1<Accum<X>>().data() : nullptr;
    permute_kernel<X>(exec, x.as2<X>(), token_offsets, PlaceOf(places),
                      TypedTarget<X>(first, y, values.to),
                      TypedTarget<X>(other.first, other.rows, other.values), from);
  });
}

void combine_rows(const ExecSpace& exec, const AnyIn& x, const View1<const int>& token_offsets,
                  const RowPlaces& places, const AnyIn& residual, const AnyView& y,
                  const RowValues& values) {
  require(x.extent(1) == y.extent(1) && are_places(places) &&
              static_cast<std::int64_t>(token_offsets.size()) == y.extent(0) + 1 &&
              (residual.empty() || same_shape(residual, y)) &&
              (values.to.empty() ||
               (values.to.size() == places.assignments() && values.from.size() == x.extent(0))),
          "combine_rows: want x (R,H), token_offsets (T+1), places (A), residual, y (T,H), values "
          "(R) to (A)");
  if (y.empty()) return;
  dispatch(y.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    const X* pass = residual.empty() ? nullptr : residual.as2<X>().data();
    const bool has_values = !values.to.empty();
    combine_kernel<X>(exec, x.as2<X>(), token_offsets, PlaceOf(places),
                      static_cast<int>(places.assignments()), pass, y.as2<X>(),
                      has_values ? values.from.as1<Accum<X>>().data() : nullptr,
                      has_values ? values.to.as1<Accum<X>>().data() : nullptr);
  });
}

void gather_values(const ExecSpace& exec, const AnyIn& x, const View1<const int>& source,
                   const AnyView& y) {
  require(static_cast<std::int64_t>(source.size()) == y.size(), "gather_values: want y (source)");
  if (y.empty()) return;
  dispatch_accum(y.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    gather_values_kernel<A>(exec, x.flat<A>(), source, y.flat<A>());
  });
}

}  // namespace konclave::ops

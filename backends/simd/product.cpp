#include "simd/product.hpp"

#include "ops/elementwise.hpp"
#include "ops/workers.hpp"
#include "simd/panels.hpp"

#include <algorithm>
#include <vector>

namespace konclave::simd {

namespace {

using ops::Product;
using Workspace = ops::Workspace<float>;

/// Rows whose transposed copy, or whose panels, are held at a time: bounds the workspace.
constexpr std::int64_t kChunkRows = 1024;
/// Bytes of a left factor's block of rows: what stays in the second cache beside the panels.
constexpr std::int64_t kBlockBytes = 200 << 10;
/// Bytes of a right factor's columns that are brought into panels at a time.
constexpr std::int64_t kGatheredBytes = 4 << 20;

int block_rows(std::int64_t k) {
  return kBlockRows * k * static_cast<std::int64_t>(sizeof(float)) <= kBlockBytes ? kBlockRows
                                                                                  : kFewBlockRows;
}

/// Columns whose panels are held at a time: whole rows of the usual weight, which are read best.
std::int64_t gathered_columns(std::int64_t k) {
  const std::int64_t fit = kGatheredBytes / static_cast<std::int64_t>(sizeof(float)) / k;
  return std::clamp<std::int64_t>(fit / kMostColumns * kMostColumns, kMostColumns, 1024);
}

/// Floats up to the next full line of a cache.
std::int64_t aligned(std::int64_t floats) { return Workspace::piece(1, floats); }

template <typename X> Block<X> block_of(const AnyView& view) {
  return {view.as2<X>().data(), view.extent(1)};
}
template <typename X> Block<const X> block_of(const AnyIn& view) {
  return {view.as2<X>().data(), view.extent(1)};
}

/// Rows of a right factor that are brought into panels at a time: few, so that their pieces for all
/// panels are read while their pages and lines are at hand.
constexpr std::int64_t kPieceRows = 16;
/// How many rows further on memory is asked for meanwhile.
constexpr std::int64_t kRowsAhead = 32;

/// A right factor (k, columns) in panels.
template <typename X>
void gather(const ExecSpace& exec, const Panels& panels, Block<const X> from, float* packed) {
  const std::int64_t k = panels.k();
  ops::for_each_item("konclave::simd::gather", exec, (k + kPieceRows - 1) / kPieceRows,
                     [=](std::int64_t, std::int64_t item) {
                       const std::int64_t row = item * kPieceRows,
                                          count = std::min(kPieceRows, k - row);
                       for (std::int64_t p = 0; p < panels.count(); ++p) {
                         const int width = panels.width(p);
                         const X* const piece = from.row(row) + panels.first(p);
                         for (std::int64_t i = 0; i < std::min(count, k - row - kRowsAhead); ++i) {
                           __builtin_prefetch(piece + (i + kRowsAhead) * from.stride, 0, 3);
                         }
                         copy<X>({piece, from.stride}, count, panels.columns(p),
                                 {packed + panels.offset(p) + row * width, width}, width);
                       }
                     });
}

/// Brings a part of the next block's memory into the second cache while this one is multiplied.
class Fetch {
 public:
  Fetch(const void* from, std::int64_t bytes, std::int64_t parts)
      : next_(static_cast<const char*>(from)),
        end_(next_ + bytes),
        share_((bytes / kLine + parts - 1) / std::max<std::int64_t>(1, parts) * kLine) {}

  void part() {
    for (const char* const last = std::min(end_, next_ + share_); next_ < last; next_ += kLine) {
      __builtin_prefetch(next_, 0, 2);
    }
  }

 private:
  static constexpr std::int64_t kLine = 64;
  const char *next_, *end_;
  std::int64_t share_;
};

/// c (+)= a b^T,  a (M,K), b (N,K): blocks of rows of b, which is the larger one, times panels of
/// a^T, so that the result comes transposed.
template <typename X, typename R>
void multiply_rows(const ExecSpace& exec, const Product& product, Workspace workspace) {
  const Kernels& best = kernels();
  const std::int64_t m = product.c.extent(0), n = product.c.extent(1), k = product.inner();
  const Block<const X> a = block_of<X>(product.a), b = block_of<X>(product.b);
  const Block<R> c = block_of<R>(product.c);
  const Panels panels(best, k, m);
  float* const packed = workspace.take(1, panels.size()).data;
  ops::for_each_item("konclave::simd::pack", exec, panels.count(),
                     [=](std::int64_t, std::int64_t p) {
                       const int width = panels.width(p);
                       copy_transposed<X>({a.row(panels.first(p)), a.stride}, panels.columns(p), k,
                                          {packed + panels.offset(p), width}, width);
                     });
  const int most = block_rows(k);
  const Finish add{1, product.accumulate};
  const std::int64_t blocks = (n + most - 1) / most;
  const std::int64_t wide = std::is_same_v<X, float> ? 0 : most * k;
  float* const scratch = workspace.take(ops::workers(exec), wide).data;
  ops::for_each_item(
      "konclave::simd::multiply_rows", exec, blocks, [=](std::int64_t worker, std::int64_t item) {
        Sums sums;
        const std::int64_t first = item * most;
        const int rows = static_cast<int>(std::min<std::int64_t>(most, n - first));
        const Block<const float> left =
            wide_rows<X>({b.row(first), b.stride}, rows, k, scratch + worker * wide);
        const std::int64_t next = std::min(n, first + most);
        Fetch fetch(b.row(next), std::min<std::int64_t>(most, n - next) * k * sizeof(X),
                    panels.count());
        for (std::int64_t p = 0; p < panels.count(); ++p) {
          fetch.part();
          const int width = panels.width(p);
          multiply_block(best, left, rows, k, packed + panels.offset(p), width, sums);
          finish_transposed<R>({sums.values, width}, rows, panels.columns(p), add,
                               {c.row(panels.first(p)) + first, c.stride});
        }
      });
}

/// c (+)= a b,  a (M,K), b (K,N): columns of b are brought into panels, some at a time, and meet
/// blocks of rows of a.
template <typename X, typename R>
void multiply_columns(const ExecSpace& exec, const Product& product, Workspace workspace) {
  const Kernels& best = kernels();
  const std::int64_t m = product.c.extent(0), n = product.c.extent(1), k = product.inner();
  const Block<const X> a = block_of<X>(product.a), b = block_of<X>(product.b);
  const Block<R> c = block_of<R>(product.c);
  const int most = block_rows(k);
  const Finish add{1, product.accumulate};
  const std::int64_t step = gathered_columns(k);
  float* const packed = workspace.take(step, k).data;
  const std::int64_t wide = std::is_same_v<X, float> ? 0 : most * k;
  float* const scratch = workspace.take(ops::workers(exec), wide).data;
  for (std::int64_t first = 0; first < n; first += step) {
    const Panels panels(best, k, std::min(step, n - first));
    gather<X>(exec, panels, {b.data + first, b.stride}, packed);
    ops::for_each_item("konclave::simd::multiply_columns", exec, (m + most - 1) / most,
                       [=](std::int64_t worker, std::int64_t item) {
                         const std::int64_t row = item * most;
                         const int rows = static_cast<int>(std::min<std::int64_t>(most, m - row));
                         const Block<const float> left =
                             wide_rows<X>({a.row(row), a.stride}, rows, k, scratch + worker * wide);
                         multiply_panels<R>(best, left, rows, k, panels, packed, panels.total(),
                                            add, {c.row(row) + first, c.stride});
                       });
  }
}

/// c (+)= a^T b,  a (K,M), b (K,N): a sum over rows, of which there are few beside the size of c.
template <typename X, typename R>
void multiply_sum(const ExecSpace& exec, const Product& product, Workspace workspace) {
  const Kernels& best = kernels();
  const std::int64_t m = product.c.extent(0), n = product.c.extent(1), k = product.inner();
  const Block<const X> a = block_of<X>(product.a), b = block_of<X>(product.b);
  const Block<R> c = block_of<R>(product.c);
  const Panels panels(best, k, n);
  float* const packed = workspace.take(1, panels.size()).data;
  gather<X>(exec, panels, b, packed);
  const int most = block_rows(k);
  const Finish add{1, product.accumulate, /*streams=*/true};
  const std::int64_t blocks = (m + most - 1) / most;
  float* const scratch = workspace.take(ops::workers(exec), most * k).data;
  ops::for_each_item(
      "konclave::simd::multiply_sum", exec, blocks, [=](std::int64_t worker, std::int64_t item) {
        const std::int64_t first = item * most;
        const int rows = static_cast<int>(std::min<std::int64_t>(most, m - first));
        float* const left = scratch + worker * most * k;
        // The rows of `left` are columns of a.
        for (std::int64_t row = 0; row < k; row += kFloats) {
          const int count = static_cast<int>(std::min<std::int64_t>(kFloats, k - row));
          copy_transposed<X>({a.row(row) + first, a.stride}, count, rows, {left + row, k}, count);
        }
        multiply_panels<R>(best, {left, k}, rows, k, panels, packed, panels.total(), add,
                           {c.row(first), c.stride});
      });
}

/// A sum that is rounded at its end cannot be cut.
std::int64_t chunk_rows(bool is_sum, DType result, std::int64_t rows) {
  return is_sum && result != DType::fp32 ? rows : std::min(rows, kChunkRows);
}

template <typename X, typename R>
void multiply_typed(const ExecSpace& exec, const Product& product, const AnyView& workspace) {
  const std::int64_t rows = product.a.extent(0);
  const std::int64_t step = chunk_rows(product.transpose_a, product.c.type(), rows);
  for (std::int64_t first = 0; first < rows; first += step) {
    const Product chunk = part_of(product, first, std::min(step, rows - first));
    if (product.transpose_a) {
      multiply_sum<X, R>(exec, chunk, Workspace(workspace));
    } else if (product.transpose_b) {
      multiply_rows<X, R>(exec, chunk, Workspace(workspace));
    } else {
      multiply_columns<X, R>(exec, chunk, Workspace(workspace));
    }
  }
}

}  // namespace

std::size_t product_workspace(const GemmShape& shape, std::int64_t rows) {
  const bool is_sum = shape.kind == GemmKind::weight_gradient;
  const std::int64_t chunk = chunk_rows(is_sum, shape.result, rows);
  const std::int64_t inner = is_sum                            ? chunk
                             : shape.kind == GemmKind::forward ? shape.in
                                                               : shape.out;
  const std::int64_t columns = is_sum ? shape.in : chunk;
  const std::int64_t each = is_sum || shape.type != DType::fp32 ? kBlockRows * inner : 0;
  const std::int64_t panels = shape.kind == GemmKind::data_gradient
                                  ? gathered_columns(inner) * inner
                                  : Panels(kernels(), inner, columns).size();
  const std::int64_t floats = aligned(panels) + aligned(ops::workers(ExecSpace()) * each);
  return static_cast<std::size_t>(floats) * sizeof(float);
}

void multiply(const ExecSpace& exec, const Product& product, const AnyView& workspace) {
  if (product.c.empty()) return;
  if (product.inner() == 0) {
    if (!product.accumulate) ops::fill_zero(exec, product.c);
    return;
  }
  const auto with_result = [&](auto x) {
    using X = typename decltype(x)::type;
    if (product.c.type() == DType::fp32) {
      multiply_typed<X, float>(exec, product, workspace);
    } else {
      multiply_typed<X, Bf16>(exec, product, workspace);
    }
  };
  if (product.a.type() == DType::fp32) {
    with_result(TypeTag<float>{});
  } else {
    with_result(TypeTag<Bf16>{});
  }
}

}  // namespace konclave::simd

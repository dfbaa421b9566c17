#include "onednn/pieces.hpp"

#include "onednn/matmul.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace konclave::onednn {

namespace {

using ops::Product;

constexpr std::int64_t kLeast = 32, kMost = 512;
constexpr std::int64_t kLine = 64;

std::int64_t lines(std::int64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

/// Rows of the next piece when so many are left: kLeast may be more than that.
std::int64_t piece_rows(std::int64_t left) {
  const auto whole = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(left)));
  return std::clamp(whole, kLeast, kMost);
}

/// Hands out matrices of kLeast rows in a workspace.
class Padding {
 public:
  explicit Padding(const AnyView& workspace) : next_(static_cast<std::byte*>(workspace.data())) {}

  AnyView take(const AnyIn& like) {
    const AnyView taken(like.type(), next_, {kLeast, like.extent(1), 1}, 2);
    next_ += lines(static_cast<std::int64_t>(taken.bytes()));
    return taken;
  }
  /// With zeros in the rows behind.
  AnyView take_copy(const AnyIn& from) {
    const AnyView taken = take(from);
    std::memcpy(taken.data(), from.data(), from.bytes());
    std::memset(static_cast<std::byte*>(taken.data()) + from.bytes(), 0,
                taken.bytes() - from.bytes());
    return taken;
  }

 private:
  std::byte* next_;
};

/// A piece with fewer rows than its primitive.
void multiply_padded(const Product& piece, const AnyView& workspace) {
  Padding padding(workspace);
  Product whole = piece;
  whole.a = padding.take_copy(piece.a);
  if (piece.transpose_a) {
    whole.b = padding.take_copy(piece.b);
    matmul(whole);
    return;
  }
  whole.c = piece.accumulate ? padding.take_copy(piece.c) : padding.take(piece.c);
  matmul(whole);
  std::memcpy(piece.c.data(), whole.c.data(), piece.c.bytes());
}

}  // namespace

std::size_t pieces_workspace(const GemmShape& shape) {
  const auto widest =
      static_cast<std::int64_t>(std::max(size_of(shape.type), size_of(shape.result)));
  return static_cast<std::size_t>(lines(kLeast * shape.in * widest) +
                                  lines(kLeast * shape.out * widest));
}

void multiply_in_pieces(const Product& product, const AnyView& workspace) {
  const std::int64_t rows = product.a.extent(0);
  for (std::int64_t first = 0; first < rows;) {
    const std::int64_t left = rows - first, count = piece_rows(left);
    if (count <= left) {
      matmul(part_of(product, first, count));
    } else {
      multiply_padded(part_of(product, first, left), workspace);
    }
    first += count;
  }
}

}  // namespace konclave::onednn

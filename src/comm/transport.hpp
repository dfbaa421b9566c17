#pragma once

#include "base/error.hpp"
#include "comm/request.hpp"
#include "comm/row_blocks.hpp"
#include "tensor/view.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace konclave {

/// What is reduced on the host; counts of 64 bits, so that sums of token counts never overflow.
template <typename X>
concept HostNumber = std::same_as<X, double> || std::same_as<X, std::int64_t>;

/// Communication of one group of ranks; layers and trainer know nothing else of it.
///
/// Every function but send and receive is collective: all members call the same ones in the same
/// order. Tensors move in whole rows (slices of the first axis; the rest of the shape and the type
/// agree on all ranks), in the order of ranks. `start_...` hands over what was put on `exec` before
/// and returns at once; `Request::wait` makes the result visible. Several may be under way. Views
/// may have no rows.
class Transport {
 public:
  virtual ~Transport() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& name() const = 0;

  /// receive[r * n + i] = send[i] of rank r, with n rows of `send`, the same on all ranks.
  Request start_all_gather(const ExecSpace& exec, const AnyIn& send, const AnyView& receive) const {
    const std::vector<std::int64_t> rows(static_cast<std::size_t>(size()), send.extent(0));
    return start_all_gather_rows(exec, send, receive, rows);
  }

  /// The rows of all ranks, those of rank 0 first: `receive_rows[r]` of rank r, so as many as this
  /// rank's `send` has for itself. All ranks pass the same counts, which may be 0.
  virtual Request start_all_gather_rows(const ExecSpace& exec, const AnyIn& send,
                                        const AnyView& receive,
                                        std::span<const std::int64_t> receive_rows) const = 0;

  /// Rank r gets the rows of `send_blocks[r]` of `send`; those of rank r come to the places
  /// `receive_blocks[r]` of `receive`. What r sends to q is what q expects of r, block by block.
  /// Blocks of what is received lie apart. A rank that has nothing for itself to send has what it
  /// expects of itself at its places already, which then stays there.
  virtual Request start_all_to_all_blocks(const ExecSpace& exec, const AnyIn& send,
                                          const RowBlocks& send_blocks, const AnyView& receive,
                                          const RowBlocks& receive_blocks) const = 0;

  /// The same with whole views: rank r gets `send_rows[r]` consecutive rows of `send`, those for
  /// rank 0 first; `receive` takes `receive_rows[r]` rows from rank r, those of rank 0 first. The
  /// sums of both are the rows of the views. Counts may be 0.
  Request start_all_to_all(const ExecSpace& exec, const AnyIn& send,
                           std::span<const std::int64_t> send_rows, const AnyView& receive,
                           std::span<const std::int64_t> receive_rows) const {
    return start_all_to_all_blocks(exec, send, whole(send_rows, send), receive,
                                   whole(receive_rows, receive));
  }

  /// `send` to rank `to` of the group, `receive` from rank `from`: not collective, but each send
  /// needs its receive of as many bytes. Between two ranks the messages of a channel arrive in the
  /// order in which they were sent; those of different channels (0 to kChannels - 1) don't meet. A
  /// send is not held up by the receiver: it may be waited for much later.
  virtual Request start_send(const ExecSpace& exec, const AnyIn& send, int to,
                             int channel) const = 0;
  virtual Request start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                                int channel) const = 0;
  static constexpr int kChannels = 16;

  /// buffer = buffer of rank `root`.
  virtual Request start_broadcast(const ExecSpace& exec, const AnyView& buffer, int root) const = 0;

  /// buffer = sum of the buffers of all ranks, fp32 or fp64, in whatever order the library likes:
  /// the bits may differ from one run to the next. Where they may not, sum slices in the order of
  /// ranks (parallel/collectives.hpp).
  virtual Request start_all_reduce(const ExecSpace& exec, const AnyView& buffer) const = 0;

  /// Host memory, blocking: the bytes of all ranks, rank 0 first. All pass the same number.
  virtual std::vector<std::byte> gather(std::span<const std::byte> mine) const = 0;

  // Small host reductions, element by element: every rank gathers all values and folds them in the
  // order of ranks, so that the result has the same bits on every rank and in every run. A NaN on
  // any rank becomes the result.

  template <HostNumber X> void sum(std::span<X> values) const {
    fold(values, [](X a, X b) { return a + b; });
  }
  template <HostNumber X> void max(std::span<X> values) const {
    fold(values, [](X a, X b) { return a != a || a > b ? a : b; });
  }
  template <HostNumber X> void min(std::span<X> values) const {
    fold(values, [](X a, X b) { return a != a || a < b ? a : b; });
  }
  template <HostNumber X> X sum(X value) const {
    sum(std::span<X>(&value, 1));
    return value;
  }
  template <HostNumber X> X max(X value) const {
    max(std::span<X>(&value, 1));
    return value;
  }
  template <HostNumber X> X min(X value) const {
    min(std::span<X>(&value, 1));
    return value;
  }

 private:
  RowBlocks whole(std::span<const std::int64_t> rows, const AnyIn& view) const {
    RowBlocks blocks = consecutive_blocks(rows);
    require(rows_of(blocks) == view.extent(0),
            "all_to_all of group '" + name() + "': counts add up to " +
                std::to_string(rows_of(blocks)) + " rows, the view is " + view.describe());
    return blocks;
  }

  /// values = combine(... combine(values of rank 0, of rank 1) ..., of the last rank).
  template <typename X, typename Combine> void fold(std::span<X> values, Combine combine) const {
    const std::vector<std::byte> gathered = gather(std::as_bytes(values));
    for (std::size_t i = 0; i < values.size(); ++i) {
      for (int from = 0; from < size(); ++from) {
        const std::size_t index = static_cast<std::size_t>(from) * values.size() + i;
        X other;
        std::memcpy(&other, gathered.data() + index * sizeof(X), sizeof(X));
        values[i] = from == 0 ? other : combine(values[i], other);
      }
    }
  }
};

}  // namespace konclave

#include "comm/checked_transport.hpp"

#include "base/error.hpp"
#include "comm/mpi_call.hpp"

#include <mpi.h>

#include <map>
#include <utility>

namespace konclave {

namespace {

// What a member is about to do, as numbers; behind these come rows for each rank of the group.
enum Field { kKind, kNumber, kBytes, kType, kRoot, kRows };
enum Kind : std::int64_t { kAllGather, kAllToAll, kBroadcast, kAllReduce, kGather };
constexpr const char* kKindNames[] = {"all_gather", "all_to_all", "broadcast", "all_reduce",
                                      "gather"};
constexpr std::int64_t kNone = -1;

std::int64_t type_of(const AnyIn& view) { return static_cast<std::int64_t>(view.type()); }

std::int64_t bytes_of(const AnyIn& view) { return static_cast<std::int64_t>(view.bytes()); }

using Numbers = std::span<const std::int64_t>;

/// "all_gather of 96 bytes (fp32) in rows 1 2".
std::string describe(Numbers call) {
  const std::int64_t kind = call[kKind];
  std::string text = kKindNames[kind];
  text += kind == kAllToAll ? " with rows of " : " of ";
  text += std::to_string(call[kBytes]) + " bytes";
  if (call[kType] != kNone) {
    text += " (" + std::string(name_of(static_cast<DType>(call[kType]))) + ")";
  }
  if (call[kRoot] != kNone) text += " from member " + std::to_string(call[kRoot]);
  if (kind != kAllGather) return text;
  text += " in rows";
  for (const std::int64_t rows : call.subspan(kRows)) {
    text += ' ';
    text += std::to_string(rows);
  }
  return text;
}

}  // namespace

/// The calls of all members on their way to this one.
class CheckedTransport::Comparison {
 public:
  Comparison(const Communicator& group, std::vector<std::int64_t> mine)
      : group_(group),
        mine_(std::move(mine)),
        all_(mine_.size() * static_cast<std::size_t>(group.size())) {
    const int bytes = static_cast<int>(mine_.size() * sizeof(std::int64_t));
    check_mpi(MPI_Iallgather(mine_.data(), bytes, MPI_BYTE, all_.data(), bytes, MPI_BYTE,
                             group.handle(), &request_),
              "MPI_Iallgather", group.name());
  }

  bool poll() { return is_done(request_, group_.name()); }

  /// Throws Error, the same on all members, when their calls don't fit.
  void finish() {
    check_mpi(MPI_Wait(&request_, MPI_STATUS_IGNORE), "MPI_Wait", group_.name());
    const std::size_t together = fields_in_common();
    bool same = true;
    for (int member = 0; member < group_.size(); ++member) {
      for (std::size_t field = 0; field < together; ++field) {
        same = same && call(member)[field] == call(0)[field];
      }
    }
    if (!same) fail("group '" + group_.name() + "': " + differences());
    if (mine_[kKind] == kAllToAll) require_rows_sent();
  }

  /// Of an all-to-all: from each member.
  void expect_rows(std::vector<std::int64_t> rows) { expected_ = std::move(rows); }

 private:
  Numbers call(int member) const {
    return Numbers(all_).subspan(static_cast<std::size_t>(member) * mine_.size(), mine_.size());
  }

  /// Fields that have to be the same: in an all-to-all each member has rows of its own.
  std::size_t fields_in_common() const {
    return mine_[kKind] == kAllToAll ? static_cast<std::size_t>(kRows) : mine_.size();
  }

  /// Rows that another member has for this one.
  std::int64_t rows_from(int member) const {
    return call(member)[kRows + static_cast<std::size_t>(group_.rank())];
  }

  std::string differences() const {
    std::map<std::string, std::string> members_of;
    for (int member = 0; member < group_.size(); ++member) {
      std::string& members = members_of[describe(call(member))];
      members += (members.empty() ? "" : ", ") + std::to_string(member);
    }
    std::string text =
        "collective number " + std::to_string(mine_[kNumber]) + " is not the same on all members:";
    for (const auto& [what, members] : members_of) {
      text += text.back() == ':' ? " " : "; ";
      text += what;
      text += " on ";
      text += members;
    }
    return text;
  }

  void require_rows_sent() const {
    for (int member = 0; member < group_.size(); ++member) {
      if (member == group_.rank()) continue;  // what stays is the inner transport's affair
      const std::int64_t expected = expected_[static_cast<std::size_t>(member)];
      require(rows_from(member) == expected,
              "group '" + group_.name() + "': in all_to_all number " +
                  std::to_string(mine_[kNumber]) + " member " + std::to_string(member) + " sends " +
                  std::to_string(rows_from(member)) + " rows, member " +
                  std::to_string(group_.rank()) + " expects " + std::to_string(expected));
    }
  }

  const Communicator& group_;
  std::vector<std::int64_t> mine_, all_, expected_;
  MPI_Request request_ = MPI_REQUEST_NULL;
};

/// A communication whose comparison comes first: MPI may hang in one that does not fit.
class CheckedTransport::Checked final : public Request::Pending {
 public:
  Checked(std::unique_ptr<Comparison> comparison, Request inner)
      : comparison_(std::move(comparison)), inner_(std::move(inner)) {}

  bool poll() override { return comparison_->poll() && inner_.poll(); }

  void finish(const ExecSpace& exec) override {
    comparison_->finish();
    inner_.wait(exec);
  }

 private:
  std::unique_ptr<Comparison> comparison_;
  Request inner_;
};

std::unique_ptr<CheckedTransport::Comparison> CheckedTransport::compare(
    std::vector<std::int64_t> mine) const {
  mine[kNumber] = ++calls_;
  mine.resize(kRows + static_cast<std::size_t>(size()), 0);
  return std::make_unique<Comparison>(inner_->communicator(), std::move(mine));
}

Request CheckedTransport::start_all_gather_rows(const ExecSpace& exec, const AnyIn& send,
                                                const AnyView& receive,
                                                std::span<const std::int64_t> receive_rows) const {
  std::vector<std::int64_t> mine{kAllGather, 0, bytes_of(receive), type_of(receive), kNone};
  mine.insert(mine.end(), receive_rows.begin(), receive_rows.end());
  auto comparison = compare(std::move(mine));
  return {"all_gather of group '" + name() + "'",
          std::make_unique<Checked>(std::move(comparison), inner_->start_all_gather_rows(
                                                               exec, send, receive, receive_rows))};
}

Request CheckedTransport::start_all_to_all_blocks(const ExecSpace& exec, const AnyIn& send,
                                                  const RowBlocks& send_blocks,
                                                  const AnyView& receive,
                                                  const RowBlocks& receive_blocks) const {
  std::vector<std::int64_t> mine{kAllToAll, 0, static_cast<std::int64_t>(row_bytes(send)),
                                 type_of(send), kNone};
  std::vector<std::int64_t> expected;
  for (const auto& blocks : send_blocks) mine.push_back(rows_of(blocks));
  for (const auto& blocks : receive_blocks) expected.push_back(rows_of(blocks));
  auto comparison = compare(std::move(mine));
  comparison->expect_rows(std::move(expected));
  return {"all_to_all of group '" + name() + "'",
          std::make_unique<Checked>(
              std::move(comparison),
              inner_->start_all_to_all_blocks(exec, send, send_blocks, receive, receive_blocks))};
}

Request CheckedTransport::start_send(const ExecSpace& exec, const AnyIn& send, int to,
                                     int channel) const {
  return inner_->start_send(exec, send, to, channel);
}

Request CheckedTransport::start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                                        int channel) const {
  return inner_->start_receive(exec, receive, from, channel);
}

Request CheckedTransport::start_broadcast(const ExecSpace& exec, const AnyView& buffer,
                                          int root) const {
  auto comparison = compare({kBroadcast, 0, bytes_of(buffer), type_of(buffer), root});
  return {"broadcast of group '" + name() + "'",
          std::make_unique<Checked>(std::move(comparison),
                                    inner_->start_broadcast(exec, buffer, root))};
}

Request CheckedTransport::start_all_reduce(const ExecSpace& exec, const AnyView& buffer) const {
  auto comparison = compare({kAllReduce, 0, bytes_of(buffer), type_of(buffer), kNone});
  return {"all_reduce of group '" + name() + "'",
          std::make_unique<Checked>(std::move(comparison), inner_->start_all_reduce(exec, buffer))};
}

std::vector<std::byte> CheckedTransport::gather(std::span<const std::byte> mine) const {
  compare({kGather, 0, static_cast<std::int64_t>(mine.size()), kNone, kNone})->finish();
  return inner_->gather(mine);
}

}  // namespace konclave

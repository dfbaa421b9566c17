#include "comm/communicator.hpp"

#include "base/error.hpp"
#include "comm/mpi_call.hpp"

#include <cstdint>
#include <exception>
#include <utility>

namespace konclave {

Communicator Communicator::world() { return duplicate(MPI_COMM_WORLD, "world"); }

Communicator Communicator::duplicate(MPI_Comm parent, std::string name) {
  MPI_Comm handle = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(parent, &handle), "MPI_Comm_dup", name);
  return {handle, std::move(name)};
}

Communicator Communicator::split(MPI_Comm parent, int color, std::string name) {
  require(color >= 0, "group '" + name + "': color " + std::to_string(color) + " is negative");
  MPI_Comm handle = MPI_COMM_NULL;
  // Equal keys keep the order of the parent.
  check_mpi(MPI_Comm_split(parent, color, /*key=*/0, &handle), "MPI_Comm_split", name);
  return {handle, std::move(name)};
}

Communicator::Communicator(MPI_Comm handle, std::string name)
    : handle_(handle), name_(std::move(name)) {
  check_mpi(MPI_Comm_set_errhandler(handle_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", name_);
  check_mpi(MPI_Comm_rank(handle_, &rank_), "MPI_Comm_rank", name_);
  check_mpi(MPI_Comm_size(handle_, &size_), "MPI_Comm_size", name_);
}

Communicator::Communicator(Communicator&& other) noexcept
    : handle_(std::exchange(other.handle_, MPI_COMM_NULL)),
      name_(std::move(other.name_)),
      rank_(other.rank_),
      size_(other.size_) {}

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  if (this == &other) return *this;
  release();
  handle_ = std::exchange(other.handle_, MPI_COMM_NULL);
  name_ = std::move(other.name_);
  rank_ = other.rank_;
  size_ = other.size_;
  return *this;
}

Communicator::~Communicator() { release(); }

void Communicator::release() noexcept {
  if (handle_ != MPI_COMM_NULL && std::uncaught_exceptions() == 0) MPI_Comm_free(&handle_);
  handle_ = MPI_COMM_NULL;
}

void Communicator::barrier() const { check_mpi(MPI_Barrier(handle_), "MPI_Barrier", name_); }

bool Communicator::agree(bool mine) const {
  const int one = mine ? 1 : 0;
  int all = 0;
  check_mpi(MPI_Allreduce(&one, &all, 1, MPI_INT, MPI_MIN, handle_), "MPI_Allreduce", name_);
  return all == 1;
}

std::string Communicator::broadcast(std::string text, int root) const {
  require(root >= 0 && root < size_, "group '" + name_ + "': no rank " + std::to_string(root) +
                                         " among " + std::to_string(size_));
  auto length = static_cast<std::int64_t>(text.size());
  check_mpi(MPI_Bcast(&length, 1, MPI_INT64_T, root, handle_), "MPI_Bcast", name_);
  // Every rank has the root's length, so a text that is too long fails on all of them alike.
  const int count = to_mpi_count(length, "length of a text to broadcast", name_);
  text.resize(static_cast<std::size_t>(count));
  check_mpi(MPI_Bcast(text.data(), count, MPI_CHAR, root, handle_), "MPI_Bcast", name_);
  return text;
}

std::vector<std::string> Communicator::gather(const std::string& text, int root) const {
  const int mine =
      to_mpi_count(static_cast<std::int64_t>(text.size()), "length of a text to gather", name_);
  std::vector<int> lengths(rank_ == root ? static_cast<std::size_t>(size_) : 0);
  check_mpi(MPI_Gather(&mine, 1, MPI_INT, lengths.data(), 1, MPI_INT, root, handle_), "MPI_Gather",
            name_);
  std::vector<int> offsets;
  std::int64_t total = 0;
  for (const int length : lengths) {
    offsets.push_back(to_mpi_count(total, "length of all gathered texts", name_));
    total += length;
  }
  std::string all(static_cast<std::size_t>(total), '\0');
  check_mpi(MPI_Gatherv(text.data(), mine, MPI_CHAR, all.data(), lengths.data(), offsets.data(),
                        MPI_CHAR, root, handle_),
            "MPI_Gatherv", name_);
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    texts.push_back(
        all.substr(static_cast<std::size_t>(offsets[i]), static_cast<std::size_t>(lengths[i])));
  }
  return texts;
}

}  // namespace konclave

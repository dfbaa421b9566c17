#pragma once

#include <mpi.h>

#include <string>
#include <vector>

namespace konclave {

/// Owns one MPI communicator: a named set of ranks that talk to each other. All functions but the
/// getters are collective over the group, and so is destruction. A failing call throws an Error
/// that names the group. Must not outlive MpiEnvironment.
class Communicator {
 public:
  /// All ranks of the job, in a context of their own: never meets messages of other libraries.
  static Communicator world();
  /// The same ranks as `parent` in a context of their own.
  static Communicator duplicate(MPI_Comm parent, std::string name);
  /// The ranks of `parent` that pass the same `color` >= 0, in the order of their ranks there.
  static Communicator split(MPI_Comm parent, int color, std::string name);

  Communicator(Communicator&& other) noexcept;
  Communicator& operator=(Communicator&& other) noexcept;
  /// Freeing is collective: a rank that is unwinding must not wait for the others.
  ~Communicator();

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }
  /// Borrowed: for calls that this class does not wrap.
  MPI_Comm handle() const { return handle_; }

  void barrier() const;
  /// True only if every member passes true. Use it wherever one rank alone may fail.
  bool agree(bool mine) const;
  /// The text of rank `root`, whatever the others pass.
  std::string broadcast(std::string text, int root) const;
  /// The texts of all ranks, in their order, on rank `root`; nothing elsewhere.
  std::vector<std::string> gather(const std::string& text, int root) const;

 private:
  Communicator(MPI_Comm handle, std::string name);
  void release() noexcept;

  MPI_Comm handle_ = MPI_COMM_NULL;
  std::string name_;
  int rank_ = 0;
  int size_ = 0;
};

}  // namespace konclave

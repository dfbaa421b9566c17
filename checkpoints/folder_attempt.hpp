#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace konclave {

/// A folder that is filled under a name of its own and then appears under its final one, complete,
/// or not at all. Both names are in the same parent, so that a rename is all it takes:
///
///   .NAME.tmp-HOST-PID-N   being filled (or being deleted)
///   NAME                   complete
///   .NAME.old-HOST-PID-N   complete too: makes room for a new NAME, for the time of two renames
class FolderAttempt {
 public:
  /// Creates the temporary folder, and its parent where that is missing.
  explicit FolderAttempt(std::filesystem::path target);
  /// Removes the temporary folder if it was not committed.
  ~FolderAttempt();
  FolderAttempt(const FolderAttempt&) = delete;
  FolderAttempt& operator=(const FolderAttempt&) = delete;

  /// Where to write. The files in it must be on the disk before `commit`.
  const std::filesystem::path& folder() const { return folder_; }

  /// Gives the folder its final name, durably. A folder that has the name already is deleted
  /// afterwards; `before_replacing` is called first in that case, and may throw.
  void commit(const std::function<void()>& before_replacing = [] {});

 private:
  std::filesystem::path target_, folder_;
  bool committed_ = false;
};

/// Throws Error(io) when something has the name already: what is converted replaces nothing.
void require_free(const std::filesystem::path& target);

/// Deletes a folder; what a killed process leaves of it does not bear its name any more.
void remove_folder(const std::filesystem::path& folder);

/// Clears away what killed processes left in `parent` for targets whose names begin with `prefix`:
/// deletes their temporary folders, and puts back what was moved aside without being replaced.
/// Nobody else may be writing there.
void clear_attempts(const std::filesystem::path& parent, const std::string& prefix);

}  // namespace konclave

#include "checkpoints/folder_attempt.hpp"

#include "base/error.hpp"
#include "base/file.hpp"

#include <cerrno>
#include <cstdio>
#include <sys/stat.h>
#include <system_error>
#include <utility>

namespace konclave {

namespace {

namespace fs = std::filesystem;

constexpr const char* kTemporary = ".tmp-";
constexpr const char* kAside = ".old-";

/// A name beside `target` that nobody uses.
fs::path unused_name(const fs::path& target, const char* kind) {
  std::string stem = ".";
  stem.append(target.filename().string()).append(kind).append(process_label()).append("-");
  for (int attempt = 0;; ++attempt) {
    fs::path name = target.parent_path() / (stem + std::to_string(attempt));
    std::error_code ignored;
    if (!fs::exists(fs::symlink_status(name, ignored))) return name;
  }
}

void rename_folder(const fs::path& from, const fs::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail_io("rename to " + to.string(), from, errno);
}

void delete_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail_io("remove", path, error.value());
}

fs::path without_trailing_slash(fs::path path) {
  return path.has_filename() ? path : path.parent_path();
}

}  // namespace

FolderAttempt::FolderAttempt(fs::path target) : target_(without_trailing_slash(std::move(target))) {
  const fs::path parent = target_.parent_path();
  std::error_code error;
  if (!parent.empty()) fs::create_directories(parent, error);
  if (error) fail_io("create", parent, error.value());
  folder_ = unused_name(target_, kTemporary);
  if (::mkdir(folder_.c_str(), 0777) != 0) fail_io("create", folder_, errno);
}

FolderAttempt::~FolderAttempt() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(folder_, ignored);
}

void FolderAttempt::commit(const std::function<void()>& before_replacing) {
  sync_folder(folder_);
  if (!fs::exists(target_)) {
    rename_folder(folder_, target_);
    committed_ = true;
    sync_folder(target_.parent_path());
    return;
  }
  before_replacing();
  const fs::path aside = unused_name(target_, kAside);
  rename_folder(target_, aside);
  try {
    rename_folder(folder_, target_);
  } catch (const Error&) {
    rename_folder(aside, target_);
    throw;
  }
  committed_ = true;
  sync_folder(target_.parent_path());
  delete_tree(aside);
}

void require_free(const fs::path& target) {
  require(!fs::exists(target), target.string() + " exists already; name a new folder",
          ExitCode::io);
}

void remove_folder(const fs::path& folder) {
  const fs::path doomed = unused_name(folder, kTemporary);
  rename_folder(folder, doomed);
  delete_tree(doomed);
}

void clear_attempts(const fs::path& parent, const std::string& prefix) {
  for (const std::string& name : list_folder(parent)) {
    const std::size_t aside = name.find(kAside), temporary = name.find(kTemporary);
    const bool moved_aside = aside != std::string::npos;
    const bool attempt = moved_aside || temporary != std::string::npos;
    if (!attempt || !name.starts_with("." + prefix)) continue;
    const fs::path target = parent / name.substr(1, aside - 1);
    if (moved_aside && !fs::exists(target)) {
      rename_folder(parent / name, target);
    } else {
      delete_tree(parent / name);
    }
  }
}

}  // namespace konclave

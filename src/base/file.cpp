#include "base/file.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace konclave {

namespace {

constexpr std::size_t kLargestTransfer = std::size_t{1} << 30;  // the kernel stops at 2 GiB
constexpr int kPermissions = 0666;                              // less the user's umask

std::string sentence(std::string_view action, const std::filesystem::path& path, int reason) {
  return "cannot " + std::string(action) + " " + path.string() + ": " + std::strerror(reason);
}

}  // namespace

void fail_io(std::string_view action, const std::filesystem::path& path, int reason) {
  fail(sentence(action, path, reason), ExitCode::io);
}

File::File(std::filesystem::path path, int flags, bool writing)
    : path_(std::move(path)), writing_(writing) {
  descriptor_ = ::open(path_.c_str(), flags | O_CLOEXEC, kPermissions);
  check(descriptor_ >= 0, (flags & O_CREAT) != 0 ? "create" : "open");
}

File File::create(const std::filesystem::path& path) {
  return {path, O_RDWR | O_CREAT | O_EXCL, true};
}

File File::open_for_writing(const std::filesystem::path& path) { return {path, O_RDWR, true}; }

File File::open(const std::filesystem::path& path) { return {path, O_RDONLY, false}; }

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      writing_(other.writing_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(writing_, other.writing_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void File::check(bool ok, std::string_view action) const {
  const int reason = errno;
  if (!ok) fail(sentence(action, path_, reason), writing_ ? ExitCode::io : ExitCode::input);
}

std::int64_t File::size() const {
  struct stat status {};
  check(::fstat(descriptor_, &status) == 0, "look at");
  return status.st_size;
}

void File::write(std::int64_t offset, const void* data, std::size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::pwrite(descriptor_, next, std::min(bytes, kLargestTransfer), offset);
    if (done < 0 && errno == EINTR) continue;
    check(done >= 0, "write");
    next += done;
    offset += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

void File::read(std::int64_t offset, void* data, std::size_t bytes) const {
  char* next = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::pread(descriptor_, next, std::min(bytes, kLargestTransfer), offset);
    if (done < 0 && errno == EINTR) continue;
    check(done >= 0, "read");
    require(done > 0, path_.string() + " ends before byte " + std::to_string(offset + 1),
            ExitCode::input);
    next += done;
    offset += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

void File::reserve(std::int64_t bytes) {
  const std::string action = "reserve " + std::to_string(bytes) + " bytes for";
  int status = EINTR;
  while (status == EINTR) status = ::posix_fallocate(descriptor_, 0, bytes);
  errno = status;
  check(status == 0, action);
}

void File::resize(std::int64_t bytes) { check(::ftruncate(descriptor_, bytes) == 0, "resize"); }

void File::sync() { check(::fsync(descriptor_) == 0, "write to disk"); }

void File::close() {
  const int descriptor = std::exchange(descriptor_, -1);
  check(descriptor < 0 || ::close(descriptor) == 0, "close");
}

std::string read_text(const std::filesystem::path& path) {
  const File file = File::open(path);
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, text.data(), text.size());
  return text;
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  File file = File::create(path);
  file.write(0, text.data(), text.size());
  file.sync();
  file.close();
}

void replace_text(const std::filesystem::path& path, std::string_view text) {
  auto temporary = path;
  temporary.replace_filename("." + path.filename().string() + ".tmp-" + process_label());
  ::unlink(temporary.c_str());  // of an earlier attempt of this process, if any
  try {
    write_text(temporary, text);
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail_io("replace", path, errno);
  } catch (const Error&) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(path.parent_path());
}

std::vector<std::string> list_folder(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  require(!error || error == std::errc::no_such_file_or_directory,
          "cannot list " + folder.string() + ": " + error.message(), ExitCode::input);
  std::sort(names.begin(), names.end());
  return names;
}

void sync_folder(const std::filesystem::path& folder) {
  const auto& named = folder.empty() ? std::filesystem::path(".") : folder;
  const int descriptor = ::open(named.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail_io("open", named, errno);
  const int reason = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  if (reason != 0) fail_io("write to disk", named, reason);
}

std::string process_label() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return std::string(host.data()) + "-" + std::to_string(::getpid());
}

}  // namespace konclave

#include "data/files.hpp"

#include "base/error.hpp"

#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

namespace konclave {

namespace {

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored);
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

std::vector<std::string> matches(const std::string& pattern) {
  glob_t found{};
  const int status = glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found);
  std::vector<std::string> paths;
  if (status == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  std::erase_if(paths, is_folder);
  std::sort(paths.begin(), paths.end());  // by byte value: glob itself sorts by locale
  require(!paths.empty(), "no file matches '" + pattern + "'", ExitCode::input);
  return paths;
}

}  // namespace

std::vector<std::string> expand_files(const std::vector<std::string>& paths_and_globs) {
  std::vector<std::string> files;
  for (const std::string& path : paths_and_globs) {
    if (exists(path) || path.find_first_of("*?[") == std::string::npos) {
      require(exists(path), "no such file: '" + path + "'", ExitCode::input);
      files.push_back(path);
    } else {
      const std::vector<std::string> found = matches(path);
      files.insert(files.end(), found.begin(), found.end());
    }
  }
  return files;
}

}  // namespace konclave

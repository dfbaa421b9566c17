#pragma once

#include <filesystem>
#include <string>

namespace konclave {

inline constexpr const char* kReportFile = "report.html";

/// Writes a page that shows a run: one HTML file that needs no other and no network. Its numbers
/// are in it as JSON (report_data), for its own script and for other programs. Throws Error(input)
/// when `run` is no folder of a run, Error(io) when the file cannot be written.
void write_html_report(const std::filesystem::path& run, const std::filesystem::path& file);

/// The text of the page that shows `json`; `title` is plain text.
std::string html_page(const std::string& title, const std::string& json);

}  // namespace konclave

#pragma once

#include <string_view>

namespace konclave {

/// The parts of the page that html_page puts together, the same for every run.
std::string_view report_style();
std::string_view report_body();
std::string_view report_script();

}  // namespace konclave

#include "run/html_report.hpp"

#include "base/file.hpp"
#include "run/report_data.hpp"
#include "run/report_page.hpp"

#include <string_view>

namespace konclave {

namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

}  // namespace

std::string html_page(const std::string& title, const std::string& json) {
  std::string head = title, data = json;
  replace_all(head, "&", "&amp;");
  replace_all(head, "<", "&lt;");
  replace_all(data, "<", "\\u003c");  // nothing in a text may end the element that holds it
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
         head + "</title>\n<style>\n" + std::string(report_style()) +
         "</style>\n</head>\n<body>\n" + std::string(report_body()) +
         "<script type=\"application/json\" id=\"data\">" + data + "</script>\n<script>\n" +
         std::string(report_script()) + "</script>\n</body>\n</html>\n";
}

void write_html_report(const std::filesystem::path& run, const std::filesystem::path& file) {
  const nlohmann::json data = report_data(run);
  // Paths and names may hold any bytes.
  const std::string text = data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  replace_text(file, html_page(data.at("name").get<std::string>() + " - Konclave", text));
}

}  // namespace konclave

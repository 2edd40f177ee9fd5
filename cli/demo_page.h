#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "demo_sections.h"

namespace tuiqiao::cli {

/// Text as content of a page.
std::string html_text(std::string_view text);
/// A file's bytes; empty where there is none.
std::string content_of(const std::filesystem::path& file);
/// A picture that the page carries in itself. `file` is .png or .svg. `enlarged`: a .png whose pixels are to be seen.
std::string picture_html(const std::filesystem::path& file, const std::string& caption, bool enlarged = true);
/// Output of a program, its first lines.
std::string output_html(const std::filesystem::path& file, std::size_t lines);

/// What became of a section.
struct DemoResult {
  const DemoSection* section = nullptr;
  std::string html, problem;  ///< one of them
  double seconds = 0;
};

/// The whole report, in one file that needs nothing else.
std::string demo_page(const std::vector<DemoResult>& results, const std::string& style, double seconds);

}  // namespace tuiqiao::cli

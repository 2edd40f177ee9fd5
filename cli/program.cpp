#include "program.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <new>
#include <sstream>
#include <stdexcept>

#include "complaint.h"
#include "terminal.h"
#include "tuiqiao/error.h"

namespace tuiqiao::cli {

int say(int code, std::string_view what) {
  tell(fmt::format("tuiqiao: {}\n", one_line(what)));
  return code;
}

std::optional<int> parse_arguments(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    std::ostringstream text;
    app.exit(help, text, text);
    print(text.str());
    return kDone;
  } catch (const CLI::ParseError& error) {
    return say(kUsage, fmt::format("{} (see --help)", error.what()));
  }
  return std::nullopt;
}

CLI::Validator whole_number(std::uint64_t most) {
  const auto check = [most](const std::string& text) -> std::string {
    std::uint64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error == std::errc() && stop == end && value <= most) return "";
    return fmt::format("{} is no whole number from 0 to {}", text, most);
  };
  return {check, ""};
}

namespace {

CLI::Validator finite_number(const char* type, const char* kind, bool with_zero) {
  const auto check = [=](const std::string& text) -> std::string {
    double value = 0;
    if (CLI::detail::lexical_cast(text, value) && std::isfinite(value) && (value > 0 || (with_zero && value == 0)))
      return "";
    return fmt::format("{} is no {}", text, kind);
  };
  return {check, type};
}

}  // namespace

CLI::Validator positive_number() { return finite_number("POSITIVE", "finite number above 0", false); }
CLI::Validator number_from_zero() { return finite_number("NONNEGATIVE", "finite number from 0", true); }

std::filesystem::path data_file(const std::filesystem::path& name) {
  namespace fs = std::filesystem;
  // Programs lie in bin or libexec, both beside share.
  const fs::path installed = fs::read_symlink("/proc/self/exe").parent_path() / ".." / "share" / "tuiqiao" / name;
  return !fs::exists(name) && fs::exists(installed) ? installed.lexically_normal() : name;
}

int carry_out(const std::function<int()>& command) {
  try {
    return command();
  } catch (const Interrupted&) {
    return say(kInterrupted, "interrupted");
  } catch (const Error& error) {
    return say(kBadInput, error.what());
  } catch (const std::invalid_argument& error) {
    return say(kUsage, fmt::format("{} (see --help)", complaint(error.what())));
  } catch (const std::bad_alloc&) {
    return say(kBadInput, "out of memory");
  }
}

}  // namespace tuiqiao::cli

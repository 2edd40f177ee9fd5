#include "manual.h"

#include <fmt/format.h>

#include "terminal.h"

namespace tuiqiao::cli {

namespace {

/// Text of a manual page: no line is taken for a request, no dash for a hyphen.
std::string troff(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    const bool begins = safe.empty() || safe.back() == '\n';
    if (begins && (c == '.' || c == '\'')) safe += "\\&";
    if (c == '\\') {
      safe += "\\\\";
    } else if (c == '-') {
      safe += "\\-";
    } else {
      safe += c;
    }
  }
  return safe;
}

void add_options(const CLI::App& app, std::string& page) {
  for (const CLI::Option* option : app.get_options()) {
    const bool positional = option->get_positional();
    const std::string name = positional ? option->get_name() : option->get_name(false, true);
    const std::string type = option->get_type_size() > 0 && !positional ? " " + option->get_type_name() : "";
    page += fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", troff(name), troff(type), troff(option->get_description()));
  }
}

void add_command(const CLI::App& app, const std::string& path, std::string& page) {
  page += fmt::format(".SS {}\n{}\n", troff(path), troff(app.get_description()));
  add_options(app, page);
  if (!app.get_footer().empty()) page += fmt::format(".PP\n.nf\n{}\n.fi\n", troff(app.get_footer()));
  for (const CLI::App* command : app.get_subcommands({})) {
    if (!command->get_group().empty()) add_command(*command, path + " " + command->get_name(), page);
  }
}

/// Whether a command is only a name here, for another program that has it.
bool is_name_only(const CLI::App& command) {
  return command.get_options().size() <= 1 && command.get_subcommands({}).empty() && command.get_footer().empty();
}

std::string manual_page(const CLI::App& app) {
  std::string page = fmt::format(
      ".TH TUIQIAO 1 \"\" \"tuiqiao {}\"\n.SH NAME\ntuiqiao \\- weighs the choices of generative models\n.SH SYNOPSIS\n"
      "\\fBtuiqiao\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR...]\n.SH COMMANDS\n",
      troff(TUIQIAO_VERSION));
  for (const CLI::App* command : app.get_subcommands({})) {
    if (!command->get_group().empty() && !is_name_only(*command))
      add_command(*command, app.get_name() + " " + command->get_name(), page);
  }
  return page + fmt::format(".SH EXIT STATUS\n{}\n", troff(app.get_footer())) +
         ".SH ENVIRONMENT\n"
         ".TP\n\\fBTUIQIAO_MODEL\\fR\nThe GGUF model where \\-\\-model names none.\n"
         ".TP\n\\fBXDG_CACHE_HOME\\fR\nWhere else models are looked for, in tuiqiao/models; ~/.cache without it.\n"
         ".TP\n\\fBNO_COLOR\\fR\nNo colours on the terminal.\n"
         ".TP\n\\fBGOMP_SPINCOUNT\\fR, \\fBOMP_WAIT_POLICY\\fR, \\fBOPENBLAS_CORETYPE\\fR\n"
         "How threads wait and which kernels OpenBLAS takes; chosen by the program where they are not set.\n"
         ".SH FILES\n.TP\n~/.cache/tuiqiao/models/gemma\\-3\\-270m\\-q4_k_m.gguf\n"
         "The model that is taken where none is named, as scripts/bootstrap leaves it.\n";
}

void add_words(const CLI::App& app, const std::string& path, std::string& lines) {
  std::string words;
  for (const CLI::App* command : app.get_subcommands({})) {
    if (!command->get_group().empty()) words += " " + command->get_name();
  }
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) words += " --" + name;
  }
  lines += path + ":" + words + "\n";
  for (const CLI::App* command : app.get_subcommands({})) {
    if (!command->get_group().empty()) add_words(*command, path + " " + command->get_name(), lines);
  }
}

}  // namespace

void add_manual(CLI::App& app) {
  CLI::App* manual = app.add_subcommand("manual", "Print the manual page, or the words that a shell completes");
  manual->group("");  // not among what --help lists
  manual->require_subcommand(1);
  manual->add_subcommand("man", "The manual page")->parse_complete_callback([&app] {
    print(manual_page(app));
    throw CLI::Success();
  });
  manual->add_subcommand("words", "A line for each command")->parse_complete_callback([&app] {
    std::string lines;
    add_words(app, app.get_name(), lines);
    print(lines);
    throw CLI::Success();
  });
}

}  // namespace tuiqiao::cli

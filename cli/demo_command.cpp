#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "child.h"
#include "commands.h"
#include "demo_page.h"
#include "demo_sections.h"
#include "file_output.h"
#include "model_file.h"
#include "program.h"
#include "terminal.h"
#include "tuiqiao/error.h"

namespace tuiqiao::cli {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr const char* kExamples = R"(Examples:
  tuiqiao demo --out build/demo
  tuiqiao demo --out report --model other.gguf --again
Runs every part on real input and writes OUT/index.html, one page that needs no network, with all pictures inside; OUT/raw
holds what the commands printed and wrote. A part that cannot run here says why, and the rest goes on. What an earlier run
finished is kept. Exit code 1 where a part failed that could run.)";

struct Arguments {
  std::string out, data, model, images = "/usr/share/datasets/fashion-mnist";
  bool again = false;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class Demo {
 public:
  Demo(const Arguments& arguments, const std::stop_token& stop) : a_(arguments), stop_(stop) {}

  int operator()() {
    DemoInputs inputs{data_folder(), a_.model.empty() ? default_model() : fs::path(a_.model), a_.images,
                      fs::path(a_.out) / "raw"};
    std::error_code problem;
    fs::create_directories(inputs.raw, problem);
    if (problem) throw Error(fmt::format("{}: {}", inputs.raw.string(), problem.message()));
    raw_ = inputs.raw;
    if (!a_.again) done_ = json::parse(content_of(raw_ / "done.json"), nullptr, false);
    if (!done_.is_object()) done_ = json::object();
    const std::vector<DemoSection> sections = demo_sections(inputs);
    std::vector<DemoResult> results;
    bool failed = false;
    for (const DemoSection& section : sections) {
      tell(fmt::format("demo: {} of {}: {}\n", results.size() + 1, sections.size(), section.title));
      results.push_back(result_of(section));
      const DemoResult& one = results.back();
      failed = failed || (!one.problem.empty() && section.missing.empty());
      if (!one.problem.empty()) tell(fmt::format("demo:   left out: {}\n", one_line(one.problem)));
      write_file_atomically(fs::path(a_.out) / "index.html", demo_page(results, style(), seconds_));
    }
    print(fmt::format("{}\n", (fs::path(a_.out) / "index.html").string()));
    return failed ? kBadInput : kDone;
  }

 private:
  /// The folder above examples/demo.
  fs::path data_folder() const {
    if (!a_.data.empty()) return a_.data;
    const fs::path above = data_file("examples/demo").parent_path().parent_path();
    return above.empty() ? "." : above;
  }

  /// Of the page of answers, which has its documents' colours.
  std::string style() const {
    const std::string page = content_of(raw_ / "answers.html");
    const std::size_t begin = page.find("<style>"), end = page.find("</style>");
    constexpr std::size_t kMark = 7;
    return begin == std::string::npos || end == std::string::npos ? ""
                                                                  : page.substr(begin + kMark, end - begin - kMark);
  }

  DemoResult result_of(const DemoSection& section) {
    DemoResult result{&section, "", section.missing, 0};
    if (!result.problem.empty()) return result;
    const double before = seconds_;
    for (const DemoStep& step : section.steps) {
      result.problem = run(section, step);
      if (!result.problem.empty()) return result;
    }
    result.html = section.html(raw_);
    result.seconds = seconds_ - before;
    return result;
  }

  /// What went wrong, in a line; empty where nothing did.
  std::string run(const DemoSection& section, const DemoStep& step) {
    const json command = step.arguments;
    if (done_.contains(step.output) && done_[step.output]["command"] == command && fs::exists(raw_ / step.output)) {
      seconds_ += done_[step.output]["seconds"].get<double>();
      return "";
    }
    const fs::path errors = raw_ / "errors.txt";
    const auto start = Clock::now();
    double told = 0;
    const int code = run_child({step.arguments, step.input, raw_ / step.output, errors}, stop_, [&] {
      constexpr double kMinute = 60;
      const double seconds = seconds_since(start);
      bar_.show(section.title, static_cast<std::int64_t>(seconds), 0);
      if (seconds - told < kMinute) return;
      told = seconds;
      tell(fmt::format("demo:   ... {:.0f} s\n", seconds));
    });
    bar_.clear();
    if (code != 0) {
      std::ifstream in(errors);
      std::string line, last = fmt::format("tuiqiao {} ended with {}", step.arguments.front(), code);
      while (std::getline(in, line)) {
        if (!line.empty()) last = line;
      }
      return last;
    }
    const double seconds = seconds_since(start);
    seconds_ += seconds;
    done_[step.output] = {{"command", command}, {"seconds", seconds}};
    write_file_atomically(raw_ / "done.json", done_.dump(1) + "\n");
    return "";
  }

  Arguments a_;
  std::stop_token stop_;
  fs::path raw_;
  json done_ = json::object();  ///< by output, the command that wrote it and how long it took
  double seconds_ = 0;          ///< of all steps, in this run or an earlier one
  ProgressBar bar_;
};

}  // namespace

Run add_demo(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  app.add_option("--out", a.out, "Folder of the report")->type_name("DIR")->required();
  app.add_option("-m,--model", a.model, "GGUF file [TUIQIAO_MODEL, else the one that scripts/bootstrap fetched]")
      ->type_name("FILE");
  app.add_option("--data", a.data, "Folder with examples/demo and models [this one, else the installed one]")
      ->type_name("DIR");
  app.add_option("--images", a.images, "Folder of Fashion-MNIST [/usr/share/datasets/fashion-mnist]")->type_name("DIR");
  app.add_flag("--again", a.again, "Do anew what an earlier run did");
  return [arguments](const std::stop_token& stop) { return Demo(*arguments, stop)(); };
}

}  // namespace tuiqiao::cli

#include "demo_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "demo_page.h"
#include "file_output.h"

namespace tuiqiao::cli {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Lines of JSON, those that are none left out.
std::vector<json> objects_of(const fs::path& file) {
  std::vector<json> objects;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    json object = json::parse(line, nullptr, false);
    if (object.is_object()) objects.push_back(std::move(object));
  }
  return objects;
}

/// What lies between two marks; empty where they do not stand there.
std::string between(const std::string& text, const std::string& from, const std::string& to) {
  const std::size_t begin = text.find(from);
  if (begin == std::string::npos) return {};
  const std::size_t end = text.find(to, begin + from.size());
  return end == std::string::npos ? std::string() : text.substr(begin + from.size(), end - begin - from.size());
}

class Sections {
 public:
  explicit Sections(const DemoInputs& inputs) : in_(inputs) {}

  std::vector<DemoSection> all() {
    return {audit(), answers(), healing(), samples(), skips(), latents(), likelihood(), topk(), minsum()};
  }

 private:
  std::string raw(const std::string& name) const { return (in_.raw / name).string(); }
  std::string no_text() const {
#ifndef TUIQIAO_HAS_TEXT
    return "this build is without the text engine (llama.cpp)";
#else
    return fs::exists(in_.text_model) ? ""
                                      : fmt::format(
                                            "there is no model at {} (scripts/bootstrap fetches one; --model names "
                                            "another)",
                                            in_.text_model.string());
#endif
  }
  std::string no_image_model() const {
#ifndef TUIQIAO_HAS_TORCH
    return "this build is without the tensor engine (libtorch)";
#else
    return fs::exists(image_model()) ? "" : fmt::format("there is no model at {} (--data)", image_model());
#endif
  }
  std::string no_data() const {
    if (std::string why = no_image_model(); !why.empty() || fs::exists(in_.images)) return why;
    return fmt::format("there are no images at {} (Debian: dataset-fashion-mnist)", in_.images.string());
  }
  std::string image_model() const { return (in_.data / "models" / "fashion-mnist").string(); }
  std::string demo_file(const char* name) const { return (in_.data / "examples" / "demo" / name).string(); }

  DemoSection audit() const {
    return {"audit",
            "Which tokens can be chosen",
            "Every token of the model's output layer, proven: some hidden vector chooses it, or none can. The curve "
            "shows by "
            "how much the proven winners win.",
            "docs/audit.md",
            no_text(),
            {{"audit.txt", {"audit", in_.text_model.string(), "--top", "12", "--html", raw("audit.html")}}},
            [](const fs::path& dir) {
              const std::string svg = between(content_of(dir / "audit.html"), "<svg", "</svg>");
              write_file_atomically(dir / "margins.svg", "<svg" + svg + "</svg>");
              return (svg.empty() ? "" : picture_html(dir / "margins.svg", "Proven margins, least first")) +
                     output_html(dir / "audit.txt", 60);
            }};
  }

  DemoSection answers() const {
    return {"answers",
            "Answers from many documents",
            "Sixteen documents that do not fit the window, read one by one; colours and numbers tell which one decided "
            "each "
            "token, bars how unsure it was.",
            "docs/nbce.md",
            no_text(),
            {{"answers.jsonl",
              {"generate", "-m", in_.text_model.string(), "--context", demo_file("documents"), "--ctx-size", "1024",
               "-n", "32", "--cache", raw("cache"), "--questions", demo_file("questions.json"), "--html",
               raw("answers.html"), "--json"}}},
            [](const fs::path& dir) {
              // Its sections, without its title and list of contents.
              const std::string main = between(content_of(dir / "answers.html"), "<main>", "</main>");
              const std::size_t first = main.find("<section");
              return first == std::string::npos ? output_html(dir / "answers.jsonl", 20) : main.substr(first);
            }};
  }

  DemoSection healing() const {
    const auto go_on = [&](const char* mode, const char* output) {
      return DemoStep{output,
                      {"generate", "-m", in_.text_model.string(), "--template", "none", "-n", "8", "--json",
                       "--questions", demo_file("prompts.json"), "--heal", mode}};
    };
    write_file_atomically(in_.raw / "emoji-begun", "I am so happy for you! \xF0\x9F\x98");
    write_file_atomically(in_.raw / "emoji-end", "\x8A");
    return {"healing",
            "Going on from inside a token",
            "Prompts cut anywhere: what the model makes of their tokens, and of their bytes. Bits tell how much less "
            "probable "
            "the prompt is by its own tokens.",
            "docs/healing.md",
            no_text(),
            {go_on("off", "unhealed.jsonl"),
             go_on("exact", "healed.jsonl"),
             {"emoji.jsonl",
              {"score", "-m", in_.text_model.string(), "--prompt-file", raw("emoji-begun"), "--continuation-file",
               raw("emoji-end"), "--heal", "off,exact", "--json"}}},
            healing_html};
  }

  static std::string healing_html(const fs::path& dir) {
    const auto summaries = [&](const char* file) {
      std::vector<json> found;
      for (const json& object : objects_of(dir / file)) {
        if (object.contains("summary")) found.push_back(object["summary"]);
      }
      return found;
    };
    const auto before = summaries("unhealed.jsonl"), after = summaries("healed.jsonl");
    std::string html =
        "<table><thead><tr><th>prompt</th><th>unhealed</th><th>healed</th><th "
        "class=\"v\">bits</th></tr></thead><tbody>\n";
    for (std::size_t i = 0; i < std::min(before.size(), after.size()); ++i) {
      const json& bits = after[i]["healing"]["bits_saved"];
      html += fmt::format(
          "<tr><td>{}</td><td class=\"name\" data-label=\"unhealed\">{}</td><td class=\"name\" "
          "data-label=\"healed\">{}</td>"
          "<td class=\"v\" data-label=\"bits\">{}</td></tr>\n",
          html_text(after[i]["question"].get<std::string>()), html_text(before[i]["answer"].get<std::string>()),
          html_text(after[i]["answer"].get<std::string>()),
          bits.is_number() ? fmt::format("{:.1f}", bits.get<double>()) : "more than any");
    }
    html += "</tbody></table>\n";
    std::array<std::string, 2> emoji;
    for (const json& score : objects_of(dir / "emoji.jsonl"))
      emoji[score["mode"] == "off" ? 0 : 1] = fmt::format("{:.1f}", score["bits"].get<double>());
    return html + fmt::format(
                      "<p>After three of the four bytes of \U0001F60A the last one costs {} bits unhealed and {} bits "
                      "healed.</p>\n",
                      emoji[0], emoji[1]);
  }

  DemoStep sample(const std::string& name, std::vector<std::string> more) const {
    DemoStep step{name + ".json",
                  {"diffusion", "sample", "--model", image_model(), "-n", "8", "--seed", "1", "--json", "--grid",
                   raw(name + ".png")}};
    step.arguments.insert(step.arguments.end(), more.begin(), more.end());
    return step;
  }

  /// As they were counted: two a step of heun, but for the last.
  static std::string evaluations_of(const fs::path& dir, const char* sampler, int wanted) {
    for (const json& object : objects_of(dir / fmt::format("{}-{}.json", sampler, wanted))) {
      const json& run = object.contains("summary") ? object["summary"] : object;
      if (run.contains("nfe")) return fmt::format("{} evaluations", run["nfe"].get<int>());
    }
    return fmt::format("about {} evaluations", wanted);
  }

  DemoSection samples() const {
    DemoSection section{
        "samples",
        "Images in few steps",
        "The shipped model of clothes, from the same noise by several samplers in 5, 10, 20 and 50 evaluations "
        "of the network. Below, what 1000 steps of DDPM make (shipped; <code>tuiqiao diffusion sample --model "
        "models/fashion-mnist -n 8 --steps 1000 --seed 1 --grid samples-1000.png</code>), and how quality goes "
        "with evaluations.",
        "docs/samplers.md",
        no_image_model(),
        {},
        {}};
    constexpr std::array kSamplers{"euler", "heun", "dpmpp-2m", "unipc", "sde-dpmpp-2m"};
    constexpr std::array kEvaluations{5, 10, 20, 50};
    for (const char* sampler : kSamplers) {
      for (const int nfe : kEvaluations) {
        const int steps = std::string_view(sampler) == "heun" ? nfe / 2 : nfe;
        section.steps.push_back(
            sample(fmt::format("{}-{}", sampler, nfe),
                   {"--sampler", sampler, "--schedule", "karras", "--steps", std::to_string(steps)}));
      }
    }
    section.html = [=, shipped = in_.data / "models" / "fashion-mnist"](const fs::path& dir) {
      std::string html;
      for (const char* sampler : kSamplers) {
        html += fmt::format("<h3>{}</h3>\n<div class=\"figures\">", sampler);
        for (const int nfe : kEvaluations)
          html += picture_html(dir / fmt::format("{}-{}.png", sampler, nfe), evaluations_of(dir, sampler, nfe));
        html += "</div>\n";
      }
      if (fs::exists(shipped / "samples-1000.png"))
        html += picture_html(shipped / "samples-1000.png", "DDPM, 1000 steps (shipped)");
      if (fs::exists(shipped / "few-steps.png"))
        html += picture_html(shipped / "few-steps.png",
                             "Quality against evaluations (shipped; command in docs/samplers.md)", false);
      return html;
    };
    return section;
  }

  DemoSection skips() const {
    DemoSection section{
        "skips",
        "Scaled skips",
        "Skip-Tuning: the same noise, sampler and evaluations, the network's deepest skips scaled by rho.",
        "docs/diffusion.md",
        no_image_model(),
        {},
        {}};
    constexpr std::array kRhos{"1", "0.9", "0.8", "0.7"};
    for (const char* rho : kRhos)
      section.steps.push_back(sample(fmt::format("rho-{}", rho), {"--sampler", "euler", "--schedule", "karras",
                                                                  "--steps", "5", "--rho-bottom", rho}));
    section.html = [=](const fs::path& dir) {
      std::string html = "<div class=\"figures\">";
      for (const char* rho : kRhos)
        html += picture_html(dir / fmt::format("rho-{}.png", rho), fmt::format("rho = {}, 5 evaluations", rho));
      return html + "</div>\n";
    };
    return section;
  }

  DemoSection latents() const {
    const std::vector<std::string> from{"--model", image_model(), "--data", in_.images.string()};
    const auto step = [&](const char* name, std::vector<std::string> arguments, std::vector<std::string> more) {
      arguments.insert(arguments.end(), from.begin(), from.end());
      arguments.insert(arguments.end(), more.begin(), more.end());
      return DemoStep{name, arguments};
    };
    return {"latents",
            "Between images, and edited",
            "Training images to latents along the flow and back, with great circles between; and images sent part of "
            "the way "
            "into noise, from where a sampler comes back.",
            "docs/diffusion.md",
            no_data(),
            {step("interpolate.txt", {"diffusion", "interpolate"},
                  {"-n", "6", "--steps", "20", "--grid", raw("between.png")}),
             step("edit.json", {"diffusion", "edit"},
                  {"-n", "4", "--strength", "0.3", "--steps", "20", "--json", "--grid", raw("edited.png")})},
            [](const fs::path& dir) {
              return "<div class=\"figures\">" +
                     picture_html(dir / "between.png", "Between two images each, 20 steps of heun each way") +
                     picture_html(dir / "edited.png", "An image, and four edits of it") + "</div>\n";
            }};
  }

  DemoSection likelihood() const {
    return {
        "likelihood",
        "How probable images are",
        "Bits for each pixel of test images by the probability-flow ODE, one probe of its divergence; beside them the "
        "same images inverted, which the model never saw.",
        "docs/diffusion.md",
        no_data(),
        {{"likelihood.jsonl",
          {"diffusion", "likelihood", "--model", image_model(), "--data", in_.images.string(), "--part", "t10k", "-n",
           "32", "--steps", "10", "--json", "--against", "inverted", "--plot", raw("likelihood.svg")}}},
        [](const fs::path& dir) {
          return picture_html(dir / "likelihood.svg", "32 test images, and the same inverted");
        }};
  }

  DemoSection topk() const {
    write_file_atomically(in_.raw / "row.txt", "3 1 4 1.5 5 9 2 6 5.3 5.8 8.2 7.1 0.4 6.6 4.5\n");
    return {"topk",
            "A top-k with gradients",
            "Chances of being among the three largest of fifteen numbers, and a gradient, as the temperature falls.",
            "docs/topk.md",
            "",
            {{"topk.json",
              {"topk", "--k", "3", "--json", "--plot", raw("topk.svg"), "--taus", "2,0.5,0.1"},
              raw("row.txt")}},
            [](const fs::path& dir) {
              return picture_html(dir / "topk.svg", "Chances and gradients at three temperatures");
            }};
  }

  DemoSection minsum() const {
    DemoSection section{"minsum",
                        "Least a + b + c with N = ab + c",
                        "Which is how N pictures lie best on a sheet: a rows of b, and c left over.",
                        "docs/minsum.md",
                        "",
                        {{"minsum.jsonl", {"minsum", "--json", "120..131"}}},
                        {}};
    const bool pictures = no_image_model().empty();
    if (pictures) {
      section.steps.push_back(
          {"sheet.json",
           {"diffusion", "sample", "--model", image_model(), "-n", "30", "--sampler", "dpmpp-2m", "--schedule",
            "karras", "--steps", "10", "--seed", "2", "--json", "--grid", raw("sheet.png")}});
    }
    section.html = [=](const fs::path& dir) {
      std::string html = "<table><thead><tr><th>N</th><th>a</th><th>b</th><th>c</th><th>sum</th></tr></thead><tbody>\n";
      for (const json& row : objects_of(dir / "minsum.jsonl")) {
        html += "<tr>";
        for (const auto& [key, label] : {std::pair{"n", ""}, {"a", "a"}, {"b", "b"}, {"c", "c"}, {"s", "sum"}})
          html += fmt::format("<td{}>{}</td>", *label ? fmt::format(" data-label=\"{}\"", label) : "",
                              html_text(row[key].get<std::string>()));
        html += "</tr>\n";
      }
      html += "</tbody></table>\n";
      return pictures ? html + picture_html(dir / "sheet.png", "A contact sheet of 30 images") : html;
    };
    return section;
  }

  const DemoInputs& in_;
};

}  // namespace

std::vector<DemoSection> demo_sections(const DemoInputs& inputs) { return Sections(inputs).all(); }

}  // namespace tuiqiao::cli

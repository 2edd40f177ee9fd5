#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

#include "commands.h"
#include "complaint.h"
#include "model_file.h"
#include "terminal.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/answering.h"
#include "tuiqiao/text/healing.h"
#include "tuiqiao/text/llama.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

constexpr std::size_t kMostBytes = std::size_t{1} << 24;
constexpr int kForks = 16;
constexpr int kSpareTokens = 64;  // sequences that no tokenizer makes are longer than the text's own

constexpr const char* kExamples = R"(Examples:
  printf 'import num' >x; printf 'py as np' >y; tuiqiao score --prompt-file x --continuation-file y
  tuiqiao score --prompt-file x --continuation-file y --heal exact,off --json)";

struct Arguments {
  std::string model, prompt_file, continuation_file;
  std::vector<std::string> modes{"off", "one", "back=2", "exact"};
  double unchecked = HealOptions().unchecked;
  LlamaModelOptions model_options;
  int threads = 0;
  bool json = false;
};

/// All bytes of a file, whatever they are; '-' is standard input.
std::string bytes_of(const std::string& file, const std::stop_token& stop) {
  if (file == "-") return read_standard_input(kMostBytes, stop);
  if (std::filesystem::is_directory(file)) throw Error(fmt::format("{}: is a folder", file));
  std::ifstream in(file, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.is_open() || in.bad()) throw Error(fmt::format("{}: cannot be read", file));
  if (bytes.size() > kMostBytes) throw Error(fmt::format("{}: has more than {} bytes", file, kMostBytes));
  return bytes;
}

/// A decoder in which all of the text fits, with branches enough.
LlamaDecoder make_decoder(const LlamaModel& model, const Arguments& arguments, std::size_t tokens) {
  if (tokens + kSpareTokens > static_cast<std::size_t>(model.trained_window())) {
    throw Error(fmt::format("prompt and continuation take {} tokens: too many for the model's window of {}", tokens,
                            model.trained_window()));
  }
  LlamaDecoderOptions with;
  with.max_branches = kForks + 3;
  with.window = static_cast<int>(tokens) + kSpareTokens;
  // Forks share what they have in common, but for the window of layers that slide.
  with.cells = with.window + std::int64_t{kForks + 2} * (std::min(with.window, model.sliding_window()) + kSpareTokens) +
               std::int64_t{8} * std::min(with.window, HealOptions().most_sequences);  // of those read on together
  with.threads = arguments.threads;
  return {model, with};
}

void print_score(const std::string& mode, const TextScore& score, std::size_t bytes, bool json) {
  const double bits = -score.lower / std::numbers::ln2, least = -score.upper / std::numbers::ln2;
  const double open = std::isfinite(score.upper) ? std::max(0.0, -std::expm1(score.lower - score.upper)) : 0;
  if (!json) {
    const std::string bound = bits - least < 0.005 ? "" : fmt::format("  (at least {:.2f})", least);
    print(fmt::format("{:<8} {:>10.3f} nats {:>9.2f} bits {:>8.3f} bits/byte{}\n", mode, score.lower, bits,
                      bits / static_cast<double>(bytes), bound));
    return;
  }
  const auto number = [](double x) { return std::isfinite(x) ? ordered_json(x) : ordered_json(); };
  ordered_json line;
  line["mode"] = mode;
  line["nats"] = number(score.lower);
  line["bits"] = number(bits);
  line["bytes"] = bytes;
  line["bits_per_byte"] = number(bits / static_cast<double>(bytes));
  line["unchecked_mass"] = open;
  line["nats_at_most"] = number(score.upper);
  print(line.dump() + "\n");
}

int run(const Arguments& arguments, const std::stop_token& stop) {
  if (arguments.prompt_file == "-" && arguments.continuation_file == "-")
    throw std::invalid_argument("[score] --prompt-file and --continuation-file: only one can be '-'");
  std::vector<HealOptions> ways;
  for (const std::string& mode : arguments.modes) {
    HealOptions& way = ways.emplace_back();
    way.mode = heal_mode_from_name(mode, way.back);
    way.unchecked = arguments.unchecked;
    way.max_forks = kForks;
    way.stop = stop;
    check_options(way);
  }
  const std::string prompt = bytes_of(arguments.prompt_file, stop);
  const std::string continuation = bytes_of(arguments.continuation_file, stop);
  if (continuation.empty()) throw Error(fmt::format("{}: is empty", arguments.continuation_file));
  if (arguments.threads > 0) omp_set_num_threads(arguments.threads);

  ProgressBar bar;
  const Progress progress{
      [&](std::string_view what, std::int64_t done, std::int64_t total) { bar.show(what, done, total); }, stop};
  const LlamaModel model(model_file(arguments.model), arguments.model_options, progress);
  bar.clear();
  const Vocabulary& vocabulary = model.vocabulary();
  const std::vector<Token> before = vocabulary.begin() ? std::vector<Token>{*vocabulary.begin()} : std::vector<Token>();
  // Tokens that cut a character or are no text take more room than the tokenizer says; kSpareTokens are for those.
  const std::size_t tokens = Coverings(vocabulary, prompt).tokens().size() +
                             Coverings(vocabulary, continuation).tokens().size() + before.size();
  LlamaDecoder decoder = make_decoder(model, arguments, tokens);
  for (const HealOptions& way : ways) {
    if (stop.stop_requested()) throw Interrupted();
    const Branch branch = decoder.open();
    const TextScore score = score_continuation(decoder, branch, before, prompt, continuation, way);
    decoder.close(branch);
    print_score(name(way.mode, way.back), score, continuation.size(), arguments.json);
  }
  return kDone;
}

}  // namespace

Run add_score(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  app.get_formatter()->column_width(34);
  const auto option = [&app](const char* names, auto& value, const char* type, const char* text) {
    return app.add_option(names, value, text)->type_name(type)->allow_extra_args(false);
  };
  option("-m,--model", a.model, "FILE", "GGUF file [TUIQIAO_MODEL, else the one that scripts/bootstrap fetched]");
  option("--prompt-file", a.prompt_file, "FILE",
         "What comes first; may end anywhere, and hold any bytes; '-' for input")
      ->required();
  option("--continuation-file", a.continuation_file, "FILE", "What is to follow")->required();
  option("--heal", a.modes, "MODE,...",
         "'exact': P(both) / P(prompt); 'off', 'one', 'back=N': the probability that what is generated so begins with "
         "the continuation, over all token sequences that spell it, as a lower bound [off,one,back=2,exact]")
      ->delimiter(',')
      ->check(CLI::Validator(
          [](const std::string& text) -> std::string {
            try {
              int back = 0;
              heal_mode_from_name(text, back);
              return "";
            } catch (const std::invalid_argument& error) {
              return std::string(complaint(error.what()));
            }
          },
          ""));
  option("--unchecked", a.unchecked, "P", "Most of a mass that is not looked at, 0 to 1; less takes longer [0.01]")
      ->check(CLI::Range(0.0, 0.999));
  option("--gpu-layers", a.model_options.gpu_layers, "N", "Layers on accelerators, negative for all [-1]");
  option("--threads", a.threads, "N", "Processor threads, at most 512; 0 for all [0]")
      ->check(CLI::Range(0, kMaxLlamaThreads));
  app.add_flag("--json", a.json,
               "One object a mode: mode, nats, bits, bytes, bits_per_byte, unchecked_mass, nats_at_most");
  return [arguments](const std::stop_token& stop) { return run(*arguments, stop); };
}

}  // namespace tuiqiao::cli

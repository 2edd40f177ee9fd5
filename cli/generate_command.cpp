#include <fmt/format.h>
#include <fmt/ranges.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "bytes_text.h"
#include "commands.h"
#include "complaint.h"
#include "model_file.h"
#include "program.h"
#include "terminal.h"
#include "text/utf8.h"
#include "tuiqiao/text/answering.h"

namespace tuiqiao::cli {

namespace {

namespace fs = std::filesystem;

// Found on questions that are not reported on: docs/nbce.md.
constexpr double kAbstainDivergenceBits = 0.29;

constexpr const char* kExamples = R"(Examples:
  tuiqiao generate --context notes/ "When was the bridge opened?"
  tuiqiao generate --contexts docs.json --cache ~/.cache/tuiqiao/states --html answer.html \
      --answer-prefix "The bridge was opened in" "When was the bridge opened?")";

struct Arguments {
  std::string model;
  std::vector<std::string> contexts;
  std::string contexts_json, questions_json;
  std::vector<std::string> questions;
  std::string answer_prefix;
  std::string template_name;
  std::string pool = "min_entropy", beta = "0.25", kv = "auto", heal = "exact";
  AnsweringOptions options;
  LlamaModelOptions model_options;
  std::string cache;
  std::uint64_t cache_limit = 0;
  bool abstain = false;
  AbstainRule rule{kAbstainDivergenceBits, 0};
  bool json = false, show_prompts = false;
  std::string html;
};

std::vector<Document> documents_of(const Arguments& arguments) {
  std::vector<Document> documents;
  for (const std::string& path : arguments.contexts) {
    std::error_code none;
    if (fs::is_directory(path, none)) {
      for (Document& document : read_document_folder(path)) documents.push_back(std::move(document));
    } else {
      documents.push_back(read_document(path));
    }
  }
  if (!arguments.contexts_json.empty()) {
    for (Document& document : read_documents_json(arguments.contexts_json)) documents.push_back(std::move(document));
  }
  return documents;
}

std::string question_from_standard_input(const std::stop_token& stop) {
  std::string text = read_standard_input(kMaxDocumentBytes, stop);
  check_bytes(text, "the question from standard input");
  if (text.ends_with('\n')) text.pop_back();  // the line's end, as echo writes it; a prompt may go on from more
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

std::vector<Question> questions_of(const Arguments& arguments, const std::stop_token& stop) {
  if (arguments.questions.empty() && arguments.questions_json.empty()) {
    throw std::invalid_argument("no question: give one, or --questions FILE");
  }
  if (std::count(arguments.questions.begin(), arguments.questions.end(), "-") > 1) {
    throw std::invalid_argument("'-' stands twice, but standard input holds one question");
  }
  std::vector<Question> questions;
  for (const std::string& text : arguments.questions) {
    std::error_code none;
    if (!arguments.contexts.empty() && text != "-" && fs::exists(text, none)) {
      throw std::invalid_argument(fmt::format(
          "the question '{}' is the name of a file: --context takes one file or folder, and may be repeated", text));
    }
    questions.push_back({text == "-" ? question_from_standard_input(stop) : text, arguments.answer_prefix});
    check_bytes(questions.back().text, "the question");
  }
  if (!arguments.answer_prefix.empty()) check_bytes(arguments.answer_prefix, "--answer-prefix");
  if (!arguments.questions_json.empty()) {
    for (Question& question : read_questions_json(arguments.questions_json)) {
      if (question.prefix.empty()) question.prefix = arguments.answer_prefix;
      questions.push_back(std::move(question));
    }
  }
  return questions;
}

PromptTemplate template_of(const Arguments& arguments, const LlamaModel& model) {
  const std::string message = "{document}\n\n{question}";
  const std::string& name = arguments.template_name;
  if (name.empty()) {
    const auto own = model.apply_chat_template(message);
    return own ? parse_template(*own, "the model's template") : plain_template("plain");
  }
  if (name == "plain" || name == "plain-zh" || name == "none") return plain_template(name);
  if (const auto known = LlamaModel::apply_chat_template(name, message)) return parse_template(*known, name);
  if (!fs::is_regular_file(name)) {
    throw Error(fmt::format("--template {}: neither a file nor a template's name (plain, plain-zh, none, {})", name,
                            fmt::join(LlamaModel::chat_template_names(), ", ")));
  }
  return parse_template(read_document(name).text, name);
}

/// Tokens as the model is given them, control tokens by their names; these are marked on a terminal, where text that
/// only looks like them could not be told apart.
std::string rendered(const Vocabulary& vocabulary, const std::vector<Token>& tokens, bool terminal) {
  constexpr std::string_view kMark = "\x1b[7m";
  std::string shown, text;
  const auto flush = [&] {
    shown += terminal ? terminal_text(text) : text;
    text.clear();
  };
  for (const Token token : tokens) {
    if (vocabulary.kind(token) != TokenKind::control) {
      text += vocabulary.bytes(token);
      continue;
    }
    flush();
    const std::string_view name = vocabulary.name(token);
    shown += terminal ? fmt::format("{}{}{}", kMark, one_line(name), kTerminalReset) : std::string(name);
  }
  flush();
  return shown;
}

void show_prompts(const LlamaModel& model, const std::vector<Document>& documents,
                  const std::vector<Question>& questions, const AnsweringOptions& options) {
  const Vocabulary& vocabulary = model.vocabulary();
  const int window = options.window > 0 ? options.window : model.trained_window();
  const auto contexts = make_contexts(vocabulary, documents, questions, options, window, {});
  const bool terminal = is_terminal_stderr();
  const auto show = [&](const std::string& title, const std::vector<Token>& tokens) {
    tell(fmt::format("--- {} ({} tokens)\n{}\n", one_line(title), tokens.size(),
                     rendered(vocabulary, tokens, terminal)));
  };
  show("without context", empty_prompt(options.prompt, vocabulary));
  for (const Context& context : contexts) {
    const std::string part = context.label.part > 0 ? fmt::format(", part {}", context.label.part) : "";
    show("context " + context.label.id + part, context.tokens);
  }
  for (const Question& question : questions) {
    show("then to each of them", question_prompt(options.prompt, vocabulary, question.text, question.prefix));
  }
  tell("---\n");
}

/// Writes answers to standard output as they are made: their bytes, or JSON lines; on a terminal whole characters in
/// their documents' colours.
class Writer {
 public:
  Writer(bool json, bool several)
      : json_(json),
        several_(several),
        terminal_(is_terminal_stdout()),
        colour_(!json && terminal_ && wants_colour()) {}

  void begin(const Answer& answer) {
    pending_.clear();
    held_.clear();
    if (json_) return;
    const std::string opening = (several_ ? answer.question + "\n" : "") + answer.prefix;
    print(terminal_ ? terminal_text(opening) : opening);
    open_ = true;
  }

  void token(const Answer& answer, const AnswerToken& token) {
    if (json_) {
      // A line that ends inside a character waits for the next one: it may turn out to be the last.
      print_held();
      held_ = token_json(answer, token, pending_);
      if (pending_.empty()) print_held();
    } else if (!terminal_) {
      print(token.bytes);
    } else if (const auto text = terminal_text(completed_characters(pending_, token.bytes)); !text.empty()) {
      print(colour_ && token.context >= 0 ? terminal_colour(token.context) + text + kTerminalReset : text);
    }
  }

  void end(const Answer& answer) {
    if (json_) {
      end_json(answer);
    } else {
      end_text(answer);
    }
  }

  /// Ends the line of an answer that is broken off.
  void break_off() {
    if (open_) print("\n");
    open_ = false;
  }

 private:
  void end_json(const Answer& answer) {
    if (!held_.empty()) {
      auto last = nlohmann::ordered_json::parse(held_);
      last["text"] = last["text"].get<std::string>() + valid_utf8(pending_);
      held_ = last.dump();
      print_held();
    }
    print_line(summary_json(answer));
  }

  void end_text(const Answer& answer) {
    if (terminal_) print(valid_utf8(pending_));
    const bool breaks = answer.abstained && !answer.prefix.empty();  // the prefix stands on the line already
    print(fmt::format("{}{}\n{}", breaks ? "\n" : "", answer.abstained ? "no document answers" : "",
                      several_ ? "\n" : ""));
    open_ = false;
    const bool colour = is_terminal_stderr() && wants_colour();
    if (!answer.contexts.empty() && !answer.abstained) tell(legend(answer, colour));
    tell(fmt::format("first token {:.2f} s, {:.1f} tokens/s, peak memory {}\n", answer.first_token_seconds,
                     answer.tokens_per_second, bytes_text(answer.peak_rss_bytes)));
  }

  void print_line(const std::string& json) { print((terminal_ ? terminal_json(json) : json) + "\n"); }
  void print_held() {
    if (!held_.empty()) print_line(held_);
    held_.clear();
  }

  bool json_, several_, terminal_, colour_;
  bool open_ = false;    // a line of text has begun
  std::string pending_;  // bytes of an unfinished character
  std::string held_;     // a JSON line not yet printed
};

/// Turns what was typed into options, and refuses early what could only fail late.
void settle(Arguments& arguments, const std::stop_token& stop) {
  AnsweringOptions& options = arguments.options;
  options.pooling.pooling = pooling_from_name(arguments.pool);
  options.kv = kv_layout_from_name(arguments.kv);
  options.heal.mode = heal_mode_from_name(arguments.heal, options.heal.back);
  options.pooling.beta_auto = arguments.beta == "auto";
  if (!options.pooling.beta_auto) options.pooling.beta = std::strtod(arguments.beta.c_str(), nullptr);
  if (arguments.abstain) options.abstain = arguments.rule;
  options.generate.stop = stop;
  if (options.threads > 0) omp_set_num_threads(options.threads);

  const bool weighted = options.pooling.pooling == Pooling::weights;
  if (weighted == options.pooling.weights.empty()) {
    throw std::invalid_argument(weighted ? "--pool weights needs --weights" : "--weights needs --pool weights");
  }
  check_options(options);
  check_outputs({{"--html", arguments.html}});
}

int run(Arguments& arguments, const std::stop_token& stop) {
  settle(arguments, stop);
  // All input is read and checked before the model, which takes longest.
  const std::vector<Document> documents = documents_of(arguments);
  const std::vector<Question> questions = questions_of(arguments, stop);
  std::optional<StateStore> store;
  if (!arguments.cache.empty()) store.emplace(arguments.cache, arguments.cache_limit);

  ProgressBar bar;
  const Progress progress{
      [&](std::string_view what, std::int64_t done, std::int64_t total) { bar.show(what, done, total); }, stop};
  const LlamaModel model(model_file(arguments.model), arguments.model_options, progress);
  bar.clear();
  AnsweringOptions& options = arguments.options;
  options.prompt = template_of(arguments, model);
  for (const Question& question : questions) {  // the end of a prompt may be any bytes
    if (!options.prompt.after.empty() || !question.prefix.empty()) check_text(question.text, "the question");
  }
  if (arguments.show_prompts) show_prompts(model, documents, questions, options);

  Writer writer(arguments.json, questions.size() > 1);
  AnsweringEvents events;
  events.note = [&](const std::string& line) {
    bar.clear();
    tell(fmt::format("tuiqiao: {}\n", one_line(line)));
  };
  events.begin = [&](const Answer& answer) {
    bar.clear();
    writer.begin(answer);
  };
  events.token = [&](const Answer& answer, const AnswerToken& token) { writer.token(answer, token); };
  events.end = [&](const Answer& answer) { writer.end(answer); };
  std::vector<Answer> answers;
  try {
    answers = answer_questions(model, documents, questions, options, store ? &*store : nullptr, progress, events);
  } catch (const Error&) {
    bar.clear();
    writer.break_off();
    throw;
  }
  if (store && !arguments.json) tell(cache_line(store->statistics()));
  if (!arguments.html.empty()) {
    write_answers_html(arguments.html,
                       documents.empty() ? "Answers" : fmt::format("Answers from {} documents", documents.size()),
                       answers);
    tell(fmt::format("tuiqiao: wrote {}\n", one_line(arguments.html)));
  }
  return kDone;
}

/// The finite number that all of `text` is.
std::optional<double> number_of(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(value)) return std::nullopt;
  return value;
}

CLI::Validator check_of(std::function<std::string(std::string&)> check) { return {std::move(check), ""}; }

/// Takes finite numbers of at least `least` and at most `most`.
CLI::Validator number(double least = std::numeric_limits<double>::lowest(),
                      double most = std::numeric_limits<double>::max()) {
  return check_of([=](const std::string& text) -> std::string {
    const auto value = number_of(text);
    if (!value) return fmt::format("{} is not a number", text);
    if (*value < least) return fmt::format("{} is less than {}", text, least);
    return *value > most ? fmt::format("{} is more than {}", text, most) : "";
  });
}

CLI::Validator beta() {
  return check_of([](const std::string& text) -> std::string {
    const bool good = text == "auto" || number_of(text).value_or(-2) >= -1;
    return good ? "" : fmt::format("{} is neither a number of at least -1 nor 'auto'", text);
  });
}

CLI::Validator top_p() {
  return check_of([](const std::string& text) -> std::string {
    const double value = number_of(text).value_or(0);
    return value > 0 && value <= 1 ? "" : fmt::format("{} is no number above 0 and at most 1", text);
  });
}

/// Takes what `from_name` does.
template <typename FromName>
CLI::Validator named(FromName from_name) {
  return check_of([=](const std::string& text) -> std::string {
    try {
      from_name(text);
      return "";
    } catch (const std::invalid_argument& error) {
      return std::string(complaint(error.what()));
    }
  });
}

/// Refuses what a shell variable leaves that is not set.
CLI::Validator not_empty() {
  return check_of([](const std::string& text) -> std::string { return text.empty() ? "must not be empty" : ""; });
}

}  // namespace

Run add_generate(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  AnsweringOptions& o = a.options;
  app.footer(kExamples);
  app.get_formatter()->column_width(34);
  app.add_option("QUESTION", a.questions,
                 "What to answer; '-' reads it from standard input. Several are answered in turn");

  const auto option = [&app](const char* group, const char* names, auto& value, const char* type, std::string text) {
    // A value is one argument, also of a list: "--context a.txt QUESTION" has one document.
    return app.add_option(names, value, std::move(text))->type_name(type)->group(group)->allow_extra_args(false);
  };
  const auto flag = [&app](const char* group, const char* names, bool& value, const char* text) {
    return app.add_flag(names, value, text)->group(group);
  };
  const auto model = [&](auto&&... rest) { return option("Model", rest...); };
  model("-m,--model", a.model, "FILE", "GGUF file [TUIQIAO_MODEL, else the one that scripts/bootstrap fetched]")
      ->check(not_empty());
  model("--gpu-layers", a.model_options.gpu_layers, "N", "Layers on accelerators, negative for all [-1]");
  model("--rpc", a.model_options.rpc_servers, "HOST:PORT,...", "llama.cpp RPC servers that share the layers")
      ->delimiter(',');
  model("--threads", o.threads, "N", "Processor threads, at most 512; 0 for all [0]")
      ->check(number(0, kMaxLlamaThreads));
  model("--ctx-size", o.window, "N",
        "Window in tokens for one document with question and answer; 0 for the model's own [0]")
      ->check(number(0, kMaxLlamaWindow));
  model("--kv", a.kv, "NAME",
        "Caches of keys and values: 'unified', one for all contexts; 'streams', one each, faster with many; 'auto' "
        "takes streams unless they need much more memory [auto]")
      ->check(named(kv_layout_from_name));
  flag("Model", "--flash-attn", o.flash_attention, "Use flash attention");

  const auto documents = [&](auto&&... rest) { return option("Documents", rest...); };
  documents("--context", a.contexts, "FILE|DIR", "A document, or a folder of them; may be repeated")
      ->check(not_empty());
  documents("--contexts", a.contexts_json, "FILE", "JSON array of strings or of objects {id, title, text, score}")
      ->check(not_empty());
  documents("--overlap", o.overlap, "N", "Most tokens that parts of a split document share, in whole sentences [0]")
      ->check(number(0, kMaxLlamaWindow));
  flag("Documents", "--number-documents", o.numbered, "Put 'Part 1', 'Part 2', ... before the documents");
  auto* cache = documents("--cache", a.cache, "DIR", "Keep the documents' key-value caches here and use them again");
  cache->check(not_empty());
  documents("--cache-limit", a.cache_limit, "SIZE",
            "Most bytes kept in --cache, as 500MB or 4GB (of 1024 each); 0 for no limit [0]")
      ->transform(CLI::AsSizeValue(false).description(""))
      ->needs(cache);

  const auto prompt = [&](auto&&... rest) { return option("Prompt", rest...); };
  prompt("--template", a.template_name, "NAME|FILE",
         "'plain', 'plain-zh', 'none' to go on from the question itself, a chat template's name, or a file with "
         "{document} and {question} [the model's own, else "
         "plain]")
      ->check(not_empty());
  prompt("--answer-prefix", a.answer_prefix, "TEXT",
         "What the answer begins with, where --questions says nothing else");
  prompt("--heal", a.heal, "MODE",
         "How to go on where --answer-prefix, or with --template none the question, ends inside a token: 'exact', by "
         "the model's distribution over texts that "
         "begin so; 'one' or 'back=N' tokens back; 'off' [exact]")
      ->check(named([](const std::string& text) {
        int back = 0;
        heal_mode_from_name(text, back);
      }));
  prompt("--unchecked", o.heal.unchecked, "P",
         "Most of a healed mass, 0 to 1, that is not looked at; less takes more tokenisations [0.01]")
      ->check(CLI::Range(0.0, 0.999));
  prompt("--questions", a.questions_json, "FILE", "JSON array of strings or of objects {question, prefix}")
      ->check(not_empty());
  flag("Prompt", "--show-prompts", a.show_prompts, "Print what the model is given (on standard error)");

  const auto pooling = [&](auto&&... rest) { return option("Pooling", rest...); };
  pooling("--pool", a.pool, "NAME", "min_entropy, entropy_weighted, mean, max, mixture or weights [min_entropy]")
      ->check(named(pooling_from_name));
  pooling("--beta", a.beta, "X|auto", "Weight against the row without context, at least -1, or 'auto' [0.25]")
      ->check(beta());
  pooling("--eta", o.pooling.eta, "X", "Nats taken off the entropy of the context chosen before [0.1]")
      ->check(number());
  pooling("--top-p", o.pooling.top_p, "P", "Nucleus of each row before pooling, above 0; 1 for all of it [0.95]")
      ->check(top_p());
  pooling("--gamma", o.pooling.gamma, "X", "How much document scores count in max [1]")->check(number());
  pooling("--weights", o.pooling.weights, "X,...",
          "One weight a context, for --pool weights (guidance: --weights 2,-1 --beta 0)")
      ->delimiter(',')
      ->check(number());
  auto* abstain = flag("Pooling", "--abstain", a.abstain, "Say so where no document answers");
  pooling("--abstain-divergence", a.rule.min_divergence_bits, "X",
          fmt::format("Least divergence from the row without context, in bits, 0 to 1 [{}]", kAbstainDivergenceBits))
      ->check(number(0, 1))
      ->needs(abstain);
  pooling("--abstain-entropy", a.rule.max_entropy_nats, "X", "Most entropy of the deciding row in nats, 0 for any [0]")
      ->check(number(0))
      ->needs(abstain);

  const auto answer = [&](auto&&... rest) { return option("Answer", rest...); };
  answer("-n,--max-tokens", o.generate.max_tokens, "N", "Most tokens of an answer [128]")->check(number(1, 1 << 20));
  answer("--temp", o.generate.temperature, "T", "Temperature; 0 takes the most probable token [0]")->check(number(0));
  answer("--seed", o.generate.seed, "N", "Of the draws [0]")->check(whole_number());
  flag("Answer", "--json", a.json, "One JSON object a token, and a summary, on standard output");
  answer("--html", a.html, "FILE", "Write the coloured answers here")->check(not_empty());
  return [arguments](const std::stop_token& stop) { return run(*arguments, stop); };
}

}  // namespace tuiqiao::cli

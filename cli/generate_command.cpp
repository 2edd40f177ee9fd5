#include <fmt/format.h>
#include <fmt/ranges.h>
#include <omp.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.h"
#include "terminal.h"
#include "tuiqiao/text/answering.h"

namespace tuiqiao::cli {

namespace {

namespace fs = std::filesystem;

// Found on questions that are not reported on: docs/nbce.md.
constexpr double kAbstainDivergenceBits = 0.5;

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
  std::string pool = "min_entropy", beta = "0.25";
  AnsweringOptions options;
  LlamaModelOptions model_options;
  std::string cache;
  std::uint64_t cache_limit = 0;
  bool abstain = false;
  AbstainRule rule{kAbstainDivergenceBits, 0};
  bool json = false, show_prompts = false;
  std::string html;
};

fs::path default_model() {
  if (const char* model = std::getenv("TUIQIAO_MODEL"); model && *model) return model;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path base = cache && *cache ? fs::path(cache) : fs::path(home ? home : ".") / ".cache";
  return base / "tuiqiao" / "models" / "gemma-3-270m-q4_k_m.gguf";
}

fs::path model_of(const Arguments& arguments) {
  if (!arguments.model.empty()) return arguments.model;
  fs::path model = default_model();
  if (!fs::exists(model))
    throw Error(fmt::format("no model: give one by -m or TUIQIAO_MODEL, or run scripts/bootstrap ({} is absent)",
                            model.string()));
  return model;
}

std::vector<Document> documents_of(const Arguments& arguments) {
  std::vector<Document> documents;
  for (const std::string& path : arguments.contexts) {
    if (fs::is_directory(path)) {
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

std::vector<Question> questions_of(const Arguments& arguments) {
  std::vector<Question> questions;
  for (const std::string& text : arguments.questions) questions.push_back({text, arguments.answer_prefix});
  if (questions.size() == 1 && questions[0].text == "-") {
    questions[0].text.assign(std::istreambuf_iterator<char>(std::cin), {});
    while (questions[0].text.ends_with('\n')) questions[0].text.pop_back();
  }
  if (!arguments.questions_json.empty()) {
    for (Question& question : read_questions_json(arguments.questions_json)) questions.push_back(std::move(question));
  }
  if (questions.empty()) throw Error("no question: give one, or --questions FILE");
  for (const Question& question : questions) {
    check_text(question.text, "the question");
    if (!question.prefix.empty()) check_text(question.prefix, "the answer prefix");
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
  if (name == "plain" || name == "plain-zh") return plain_template(name);
  if (const auto known = LlamaModel::apply_chat_template(name, message)) return parse_template(*known, name);
  if (!fs::is_regular_file(name)) {
    throw Error(fmt::format("--template {}: neither a file nor a template's name (plain, plain-zh, {})", name,
                            fmt::join(LlamaModel::chat_template_names(), ", ")));
  }
  return parse_template(read_document(name).text, name);
}

/// Tokens as the model is given them, control tokens by their names.
std::string rendered(const Vocabulary& vocabulary, const std::vector<Token>& tokens) {
  std::string text;
  for (const Token token : tokens)
    text += vocabulary.kind(token) == TokenKind::control ? vocabulary.name(token) : vocabulary.bytes(token);
  return text;
}

void show_prompts(const LlamaModel& model, const std::vector<Document>& documents,
                  const std::vector<Question>& questions, const AnsweringOptions& options) {
  const Vocabulary& vocabulary = model.vocabulary();
  const int window = options.window > 0 ? options.window : model.trained_window();
  const auto contexts = make_contexts(vocabulary, documents, questions, options, window, {});
  const auto print = [](const std::string& title, const std::string& text, std::size_t tokens) {
    fmt::print(stderr, "--- {} ({} tokens)\n{}\n", title, tokens, text);
  };
  const std::vector<Token> empty = empty_prompt(options.prompt, vocabulary);
  print("without context", rendered(vocabulary, empty), empty.size());
  for (const Context& context : contexts) {
    const std::string part = context.label.part > 0 ? fmt::format(", part {}", context.label.part) : "";
    print("context " + context.label.id + part, rendered(vocabulary, context.tokens), context.tokens.size());
  }
  for (const Question& question : questions) {
    const auto tokens = question_prompt(options.prompt, vocabulary, question.text, question.prefix);
    print("then to each of them", rendered(vocabulary, tokens), tokens.size());
  }
  fmt::print(stderr, "---\n");
}

/// Writes answers to stdout as they are made: text, coloured on a terminal, or JSON lines.
class Writer {
 public:
  Writer(bool json, bool several) : json_(json), several_(several), colour_(!json && is_terminal_stdout()) {}

  void begin(const Answer& answer) {
    pending_.clear();
    if (json_) return;
    if (several_) fmt::print("{}\n", answer.question);
    if (!answer.prefix.empty()) fmt::print("{}", answer.prefix);
    std::fflush(stdout);
  }

  void token(const Answer& answer, const AnswerToken& token) {
    if (json_) {
      fmt::print("{}\n", token_json(answer, token, pending_));
    } else if (colour_ && token.context >= 0) {
      fmt::print("{}{}{}", terminal_colour(token.context), token.bytes, kTerminalReset);
    } else {
      fmt::print("{}", token.bytes);
    }
    std::fflush(stdout);
  }

  void end(const Answer& answer) {
    if (json_) {
      fmt::print("{}\n", summary_json(answer));
    } else {
      if (answer.abstained) fmt::print("no document answers");
      fmt::print("\n{}", several_ ? "\n" : "");
    }
    std::fflush(stdout);
    if (!json_) {
      if (!answer.contexts.empty() && !answer.abstained) fmt::print(stderr, "{}", legend(answer, colour_));
      fmt::print(stderr, "first token {:.2f} s, {:.1f} tokens/s, peak memory {}\n", answer.first_token_seconds,
                 answer.tokens_per_second, bytes_text(answer.peak_rss_bytes));
    }
    constexpr double kSilentBits = 0.01;
    if (!answer.contexts.empty() && answer.first_divergence_bits < kSilentBits) {
      fmt::print(stderr,
                 "tuiqiao: the documents hardly change the answer ({:.4f} bits); --show-prompts shows what the model "
                 "is given\n",
                 answer.first_divergence_bits);
    }
  }

 private:
  bool json_, several_, colour_;
  std::string pending_;
};

int run(Arguments& arguments, std::stop_token stop) {
  AnsweringOptions& options = arguments.options;
  options.pooling.pooling = pooling_from_name(arguments.pool);
  if (arguments.beta == "auto") {
    options.pooling.beta_auto = true;
  } else {
    char* end = nullptr;
    options.pooling.beta = std::strtod(arguments.beta.c_str(), &end);
    if (arguments.beta.empty() || *end != '\0')
      throw std::invalid_argument(fmt::format("--beta {} is neither a number nor 'auto'", arguments.beta));
  }
  if (arguments.abstain) options.abstain = arguments.rule;
  options.generate.stop = stop;
  if (options.threads > 0) omp_set_num_threads(options.threads);

  // All input is read and checked before the model, which takes longest.
  const std::vector<Document> documents = documents_of(arguments);
  const std::vector<Question> questions = questions_of(arguments);
  std::optional<StateStore> store;
  if (!arguments.cache.empty()) store.emplace(arguments.cache, arguments.cache_limit);

  ProgressBar bar;
  const Progress progress{
      [&](std::string_view what, std::int64_t done, std::int64_t total) { bar.show(what, done, total); }, stop};
  const LlamaModel model(model_of(arguments), arguments.model_options, progress);
  bar.clear();
  options.prompt = template_of(arguments, model);
  if (arguments.show_prompts) show_prompts(model, documents, questions, options);

  Writer writer(arguments.json, questions.size() > 1);
  AnsweringEvents events;
  events.note = [&](const std::string& line) {
    bar.clear();
    fmt::print(stderr, "tuiqiao: {}\n", line);
  };
  events.begin = [&](const Answer& answer) {
    bar.clear();
    writer.begin(answer);
  };
  events.token = [&](const Answer& answer, const AnswerToken& token) { writer.token(answer, token); };
  events.end = [&](const Answer& answer) { writer.end(answer); };
  const std::vector<Answer> answers =
      answer_questions(model, documents, questions, options, store ? &*store : nullptr, progress, events);
  if (!arguments.html.empty()) {
    write_answers_html(arguments.html,
                       documents.empty() ? "Answers" : fmt::format("Answers from {} documents", documents.size()),
                       answers);
    fmt::print(stderr, "tuiqiao: wrote {}\n", arguments.html);
  }
  return kDone;
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

  app.add_option("-m,--model", a.model, "GGUF file [TUIQIAO_MODEL, else the one that scripts/bootstrap fetched]")
      ->type_name("FILE")
      ->group("Model");
  app.add_option("--gpu-layers", a.model_options.gpu_layers, "Layers on accelerators, negative for all [-1]")
      ->type_name("N")
      ->group("Model");
  app.add_option("--rpc", a.model_options.rpc_servers, "llama.cpp RPC servers that share the layers")
      ->delimiter(',')
      ->type_name("HOST:PORT,...")
      ->group("Model");
  app.add_option("--threads", o.threads, "Processor threads, 0 for all [0]")->type_name("N")->group("Model");
  app.add_option("--ctx-size", o.window,
                 "Window in tokens for one document with question and answer; 0 for the model's own [0]")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 30))
      ->group("Model");
  app.add_flag("--streams", o.streams,
               "A cache for each context instead of one for all: faster for many long documents")
      ->group("Model");
  app.add_flag("--flash-attn", o.flash_attention, "Use flash attention")->group("Model");

  app.add_option("--context", a.contexts, "A document, or a folder of them; may be repeated")
      ->type_name("FILE|DIR")
      ->group("Documents");
  app.add_option("--contexts", a.contexts_json, "JSON array of strings or of objects {id, title, text, score}")
      ->type_name("FILE")
      ->group("Documents");
  app.add_option("--overlap", o.overlap, "Tokens that parts of a split document share [0]")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->group("Documents");
  app.add_flag("--number-documents", o.numbered, "Put 'Part 1', 'Part 2', ... before the documents")
      ->group("Documents");
  app.add_option("--cache", a.cache, "Keep the documents' key-value caches here and use them again")
      ->type_name("DIR")
      ->group("Documents");
  app.add_option("--cache-limit", a.cache_limit, "Most bytes kept in --cache, as 500MB or 4GB; 0 for no limit [0]")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("SIZE")
      ->group("Documents");

  app.add_option("--template", a.template_name,
                 "'plain', 'plain-zh', a chat template's name, or a file with {document} and {question} [the model's "
                 "own, else plain]")
      ->type_name("NAME|FILE")
      ->group("Prompt");
  app.add_option("--answer-prefix", a.answer_prefix, "What the answer begins with")->type_name("TEXT")->group("Prompt");
  app.add_option("--questions", a.questions_json, "JSON array of strings or of objects {question, prefix}")
      ->type_name("FILE")
      ->group("Prompt");
  app.add_flag("--show-prompts", a.show_prompts, "Print what the model is given (on standard error)")->group("Prompt");

  app.add_option("--pool", a.pool, "min_entropy, entropy_weighted, mean, max, mixture or weights [min_entropy]")
      ->type_name("NAME")
      ->group("Pooling");
  app.add_option("--beta", a.beta, "Weight against the row without context, at least -1, or 'auto' [0.25]")
      ->type_name("X|auto")
      ->group("Pooling");
  app.add_option("--eta", o.pooling.eta, "Nats taken off the entropy of the context chosen before [0.1]")
      ->type_name("X")
      ->group("Pooling");
  app.add_option("--top-p", o.pooling.top_p, "Nucleus of each row before pooling, 1 for all of it [0.95]")
      ->type_name("P")
      ->group("Pooling");
  app.add_option("--gamma", o.pooling.gamma, "How much document scores count in max [1]")
      ->type_name("X")
      ->group("Pooling");
  app.add_option("--weights", o.pooling.weights,
                 "One weight a context, for --pool weights (guidance: --weights 2,-1 --beta 0)")
      ->delimiter(',')
      ->type_name("X,...")
      ->group("Pooling");
  app.add_flag("--abstain", a.abstain, "Say so where no document answers")->group("Pooling");
  app.add_option("--abstain-divergence", a.rule.min_divergence_bits,
                 fmt::format("Least divergence from the row without context, in bits [{}]", kAbstainDivergenceBits))
      ->type_name("X")
      ->check(CLI::Range(0.0, 1.0))
      ->group("Pooling");
  app.add_option("--abstain-entropy", a.rule.max_entropy_nats,
                 "Most entropy of the deciding row in nats, 0 for any [0]")
      ->type_name("X")
      ->check(CLI::NonNegativeNumber)
      ->group("Pooling");

  app.add_option("-n,--max-tokens", o.generate.max_tokens, "Most tokens of an answer [128]")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20))
      ->group("Answer");
  app.add_option("--temp", o.generate.temperature, "Temperature; 0 takes the most probable token [0]")
      ->type_name("T")
      ->check(CLI::NonNegativeNumber)
      ->group("Answer");
  app.add_option("--seed", o.generate.seed, "Of the draws [0]")->type_name("N")->group("Answer");
  app.add_flag("--json", a.json, "One JSON object a token, and a summary, on standard output")->group("Answer");
  app.add_option("--html", a.html, "Write the coloured answers here")->type_name("FILE")->group("Answer");
  return [arguments](std::stop_token stop) { return run(*arguments, std::move(stop)); };
}

}  // namespace tuiqiao::cli

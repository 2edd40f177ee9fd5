// What naive-Bayes contexts cost: a step of NbceDecoder over a bare llama_decode of the same sequences, pooling over
// one pass that normalises the rows, the time to the first token cold and cached, and the cost against the number of
// documents beside one long prompt.
#include <fmt/format.h>
#include <llama.h>
#include <omp.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>

#include "chart.h"
#include "file_output.h"
#include "needle_data.h"
#include "parallel.h"
#include "timing.h"
#include "tuiqiao/text/answering.h"
#include "tuiqiao/text/nbce.h"

namespace {

using namespace tuiqiao;
using bench::Comparison;
using nlohmann::json;

constexpr std::array kCounts{1, 4, 8, 16, 32};
constexpr std::size_t kDocumentTokens = 250;
constexpr int kWindow = 512;
constexpr int kStepsRoom = 64;

/// llama.cpp alone: n + 1 sequences, one token each a step.
class Bare {
 public:
  Bare(const std::string& file, const std::vector<std::vector<Token>>& texts, int threads) {
    llama_model_params model_params = llama_model_default_params();
    model_.reset(llama_model_load_from_file(file.c_str(), model_params));
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<std::uint32_t>(kWindow * texts.size());
    params.n_batch = 2048;
    params.n_ubatch = 512;
    params.n_seq_max = static_cast<std::uint32_t>(texts.size());
    params.n_outputs_max = static_cast<std::uint32_t>(std::max<std::size_t>(texts.size(), 32));
    params.n_threads = params.n_threads_batch = threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.swa_full = false;
    params.kv_unified = false;
    params.no_perf = true;
    context_.reset(llama_init_from_model(model_.get(), params));
    if (!context_) throw std::runtime_error("no context");
    batch_ = llama_batch_init(2048, 0, 1);
    for (std::size_t s = 0; s < texts.size(); ++s) {
      batch_.n_tokens = 0;
      for (std::size_t i = 0; i < texts[s].size(); ++i)
        add(texts[s][i], static_cast<int>(i), static_cast<int>(s), false);
      positions_.push_back(static_cast<int>(texts[s].size()));
      if (batch_.n_tokens > 0 && llama_decode(context_.get(), batch_) != 0)
        throw std::runtime_error("llama_decode failed");
    }
  }
  ~Bare() { llama_batch_free(batch_); }
  Bare(const Bare&) = delete;
  Bare& operator=(const Bare&) = delete;

  /// Returns a score, so that the rows are really there.
  float step(Token token) {
    batch_.n_tokens = 0;
    for (std::size_t s = 0; s < positions_.size(); ++s) add(token, positions_[s]++, static_cast<int>(s), true);
    if (llama_decode(context_.get(), batch_) != 0) throw std::runtime_error("llama_decode failed");
    float sum = 0;
    for (int i = 0; i < batch_.n_tokens; ++i) sum += llama_get_logits_ith(context_.get(), i)[token];
    return sum;
  }

 private:
  void add(Token token, int position, int sequence, bool row) {
    const int i = batch_.n_tokens++;
    batch_.token[i] = token;
    batch_.pos[i] = position;
    batch_.n_seq_id[i] = 1;
    batch_.seq_id[i][0] = sequence;
    batch_.logits[i] = row;
  }

  struct Free {
    void operator()(llama_model* model) const { llama_model_free(model); }
    void operator()(llama_context* context) const { llama_free(context); }
  };
  std::unique_ptr<llama_model, Free> model_;
  std::unique_ptr<llama_context, Free> context_;
  llama_batch batch_{};
  std::vector<int> positions_;
};

struct Bundle {
  std::unique_ptr<LlamaDecoder> decoder;
  std::vector<Branch> trunks;
  double read_seconds = 0;
};

Bundle read_bundle(const LlamaModel& model, const std::vector<std::vector<Token>>& texts) {
  LlamaDecoderOptions options;
  options.max_branches = static_cast<int>(texts.size());
  options.window = kWindow;
  options.streams = true;
  Bundle bundle;
  bundle.decoder = std::make_unique<LlamaDecoder>(model, options);
  bundle.read_seconds = bench::seconds_of([&] { bundle.trunks = bundle.decoder->read(texts); });
  return bundle;
}

std::string range(const bench::Spread& s, const char* unit, double scale) {
  return fmt::format("{:8.2f} {} [{:.2f}, {:.2f}]", s.median * scale, unit, s.least * scale, s.most * scale);
}

/// One step of NbceDecoder against one of llama.cpp alone, on the same texts.
Comparison compare_steps(const std::string& file, Bundle& bundle, const std::vector<std::vector<Token>>& texts) {
  NbceDecoder pooled(*bundle.decoder, bundle.trunks, {});
  Bare bare(file, texts, omp_get_max_threads());
  const Token token = texts.back()[texts.back().size() / 2];
  const Token one[] = {token};
  volatile float sink = 0;
  return bench::compare(
      [&] {
        pooled.extend({NbceDecoder::trunk(), one, Rows::last});
      },
      [&] { sink = bare.step(token); });
}

/// Normalising the rows and pooling them against normalising alone, on rows of the real model.
Comparison compare_pooling(Bundle& bundle, Pooling pooling) {
  const auto size = static_cast<std::size_t>(bundle.decoder->vocabulary().size());
  std::vector<std::vector<float>> copies;
  for (const Branch branch : bundle.trunks) {
    const auto scores = bundle.decoder->row(branch).scores;
    copies.emplace_back(scores.begin(), scores.end());
  }
  PoolingOptions options;
  options.pooling = pooling;
  const std::size_t n = copies.size() - 1;
  if (pooling == Pooling::weights) options.weights.assign(n, 1.0 / static_cast<double>(n));
  const Pooler pooler(options);
  std::vector<Row> rows(copies.size());
  std::vector<float> out(size);
  const auto normalise = [&] {
    parallel_for(static_cast<std::int64_t>(rows.size()), [&](std::int64_t i) {
      const auto k = static_cast<std::size_t>(i);
      rows[k] = {copies[k], log_sum_exp(copies[k])};
    });
  };
  return bench::compare(
      [&] {
        normalise();
        pooler.pool(std::span(rows).subspan(1), rows[0], 0, out);
      },
      normalise, 25);
}

json bench_steps(const std::string& file, const LlamaModel& model, const std::vector<std::vector<Token>>& documents) {
  json results = json::array();
  const PromptTemplate plain = plain_template("plain");
  fmt::print("\nOne step, V = {}: NbceDecoder over a bare llama_decode of the same n + 1 sequences\n",
             model.vocabulary().size());
  fmt::print("{:>4}  {:32}{:32}{}\n", "n", "NbceDecoder", "llama_decode", "ratio");
  for (const int n : kCounts) {
    std::vector<std::vector<Token>> texts{empty_prompt(plain, model.vocabulary())};
    texts.insert(texts.end(), documents.begin(), documents.begin() + n);
    Bundle bundle = read_bundle(model, texts);
    const Comparison steps = compare_steps(file, bundle, texts);
    fmt::print("{:4}  {:32}{:32}{}\n", n, range(steps.a, "ms", 1e3), range(steps.b, "ms", 1e3),
               range(steps.ratio, "", 1));
    json entry = {{"n", n}, {"step", steps.json()}, {"read_seconds", bundle.read_seconds}, {"pooling", json::object()}};
    for (const Pooling pooling : {Pooling::min_entropy, Pooling::entropy_weighted, Pooling::mean, Pooling::max,
                                  Pooling::mixture, Pooling::weights}) {
      const Comparison pool = compare_pooling(bundle, pooling);
      const double bytes =
          static_cast<double>(texts.size()) * static_cast<double>(model.vocabulary().size()) * sizeof(float);
      entry["pooling"][std::string(name(pooling))] = pool.json();
      fmt::print("      {:17} with normalising {:30}normalising alone {:30}({:.1f} GB/s)  ratio{}\n", name(pooling),
                 range(pool.a, "ms", 1e3), range(pool.b, "ms", 1e3), bytes / pool.b.median / 1e9,
                 range(pool.ratio, "", 1));
    }
    results.push_back(entry);
    std::fflush(stdout);
  }
  return results;
}

/// The same documents as one prompt: reading it, and one step at its end.
json bench_concatenation(const LlamaModel& model, const std::vector<std::vector<Token>>& documents) {
  json results = json::array();
  fmt::print("\nAll documents in one prompt\n{:>4}  {:>12}  step\n", "n", "reading");
  for (const int n : kCounts) {
    std::vector<std::vector<Token>> text(1);
    for (int k = 0; k < n; ++k)
      text[0].insert(text[0].end(), documents[static_cast<std::size_t>(k)].begin(),
                     documents[static_cast<std::size_t>(k)].end());
    LlamaDecoderOptions options;
    options.window = static_cast<int>(text[0].size()) + kStepsRoom;
    LlamaDecoder decoder(model, options);
    Branch branch = 0;
    const double read = bench::seconds_of([&] { branch = decoder.read(text).front(); });
    const Token one[] = {text[0][5]};
    std::vector<double> times;
    for (int i = 0; i < 10; ++i) {
      const double time = bench::seconds_of([&] { decoder.extend({branch, one, Rows::last}); });
      if (i > 0) times.push_back(time);
    }
    const bench::Spread step = bench::Spread::of(times);
    fmt::print("{:4}  {:10.2f} s  {}\n", n, read, range(step, "ms", 1e3));
    results.push_back({{"n", n}, {"read_seconds", read}, {"step_seconds", step.json()}});
    std::fflush(stdout);
  }
  return results;
}

/// 16 documents of 1,000 tokens and one question, from nothing to the first token, without and with the cache.
json bench_first_token(const LlamaModel& model, const std::vector<bench::Passage>& passages,
                       const std::string& folder) {
  std::vector<Document> documents;
  std::size_t next = 0;
  for (int k = 0; k < 16; ++k) {
    Document document{std::to_string(k + 1), "", "", {}};
    while (model.vocabulary().tokenize(document.text).size() < 1000)
      document.text += bench::with_fact(passages[next++ % passages.size()], "", 0) + "\n\n";
    documents.push_back(document);
  }
  AnsweringOptions options;
  options.prompt = plain_template("plain");
  options.generate.max_tokens = 1;
  const std::vector<Question> questions{{"Who created the Debian Project?", "The Debian Project was created by"}};
  const auto once = [&] {
    StateStore store(folder);
    return answer_questions(model, documents, questions, options, &store).front();
  };
  std::vector<double> cold, cached;
  bool same = true;
  for (int i = 0; i < 3; ++i) {
    std::filesystem::remove_all(folder);
    const Answer first = once();
    cold.push_back(first.first_token_seconds);
    for (int j = 0; j < 3; ++j) {
      const Answer again = once();
      cached.push_back(again.first_token_seconds);
      same = same && again.tokens.at(0).id == first.tokens.at(0).id &&
             again.tokens.at(0).logprob == first.tokens.at(0).logprob;
    }
  }
  std::filesystem::remove_all(folder);
  if (!same) throw std::runtime_error("cold and cached runs differ");
  const bench::Spread a = bench::Spread::of(cold), b = bench::Spread::of(cached);
  fmt::print(
      "\nTime to the first token, 16 documents of 1,000 tokens: cold {}, cached {}, ratio of medians {:.1f}; the same "
      "bits\n",
      range(a, "s", 1), range(b, "s", 1), a.median / b.median);
  return {{"cold_seconds", a.json()}, {"cached_seconds", b.json()}, {"ratio", a.median / b.median}};
}

void plot(const json& results, const std::string& file) {
  Series nbce_read{"NBCE", {}}, nbce_step = nbce_read, one_read{"one prompt", {}}, one_step = one_read;
  for (const json& r : results["steps"]) {
    nbce_read.points.emplace_back(r["n"], r["read_seconds"]);
    nbce_step.points.emplace_back(r["n"], 1e3 * r["step"]["a_seconds"]["median"].get<double>());
  }
  for (const json& r : results["concatenated"]) {
    one_read.points.emplace_back(r["n"], r["read_seconds"]);
    one_step.points.emplace_back(r["n"], 1e3 * r["step_seconds"]["median"].get<double>());
  }
  const Axis documents{"documents of 250 tokens"};
  write_file_atomically(file, svg_of({{"Reading the documents", documents, {"seconds"}, {nbce_read, one_read}},
                                      {"One token", documents, {"milliseconds"}, {nbce_step, one_step}}}));
}

int run(const std::string& file, const std::string& prose, const std::string& out) {
  const LlamaModel model(file);
  json results = {{"model", model.description()}, {"threads", omp_get_max_threads()}, {"load", bench::warn_of_load()}};
  const std::vector<bench::Passage> passages = bench::read_passages(prose, model.vocabulary(), kDocumentTokens);
  const PromptTemplate plain = plain_template("plain");
  std::vector<std::vector<Token>> documents;
  std::string everything;
  for (int k = 0; k < kCounts.back(); ++k) {
    const std::string text = bench::with_fact(passages.at(static_cast<std::size_t>(k)), "", 0);
    everything += text;
    documents.push_back(document_prompt(plain, model.vocabulary(), text));
  }
  results["prompts_xxh3"] = fmt::format("{:016x}", XXH3_64bits(everything.data(), everything.size()));
  fmt::print("{}, {} threads, documents of about {} tokens, template plain, prompts {}\n", model.description(),
             omp_get_max_threads(), kDocumentTokens, results["prompts_xxh3"].get<std::string>());

  results["steps"] = bench_steps(file, model, documents);
  results["concatenated"] = bench_concatenation(model, documents);
  results["first_token"] = bench_first_token(model, passages, out + ".cache");
  results["peak_rss_bytes"] = peak_rss_bytes();
  std::ofstream(out) << results.dump(1) << "\n";
  const std::string chart = std::filesystem::path(out).replace_extension(".svg").string();
  plot(results, chart);
  fmt::print("\npeak memory {:.0f} MiB; {} and {}\n", static_cast<double>(peak_rss_bytes()) / (1 << 20), out, chart);
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) {
    fmt::print(stderr, "usage: {} MODEL PROSE.txt OUT.json\n", argv[0]);
    return 2;
  }
  return run(argv[1], argv[2], argv[3]);
} catch (const std::exception& error) {
  fmt::print(stderr, "nbce: {}\n", error.what());
  return 1;
}

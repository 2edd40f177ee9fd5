#include <fmt/format.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <thread>
#include <utility>

#include "llama_state.h"
#include "parallel.h"
#include "row_kernels.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/pooling.h"

namespace tuiqiao {

namespace {

struct FreeContext {
  void operator()(llama_context* context) const { llama_free(context); }
};
using Context = std::unique_ptr<llama_context, FreeContext>;

constexpr std::int64_t kCellPad = 256;  // llama.cpp rounds caches up to this
constexpr int kMinBatch = 2048;         // tokens handed to one llama_decode, which cuts them into chunks itself
constexpr int kMinRows = 64;            // rows kept even where fewer branches live, for texts read with Rows::all
constexpr int kMostShared = 512;        // tokens that branches share at a time, about

std::uint32_t pad_cells(std::int64_t cells) {
  return static_cast<std::uint32_t>((cells + kCellPad - 1) / kCellPad * kCellPad);
}

int batch_capacity(const LlamaDecoderOptions& options) {
  return std::max({kMinBatch, options.chunk, options.max_branches});
}

/// A llama_batch of fixed capacity.
class Batch {
 public:
  /// `sequences`: most that a token may belong to.
  Batch(int capacity, int sequences) : batch_(llama_batch_init(capacity, 0, sequences)), capacity_(capacity) {}
  ~Batch() { llama_batch_free(batch_); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void clear() { batch_.n_tokens = 0; }
  int size() const { return batch_.n_tokens; }
  bool full() const { return batch_.n_tokens == capacity_; }
  /// A token of a branch, and of `also`.
  void add(Token token, int position, Branch branch, bool wants_row, std::span<const Branch> also = {}) {
    const int i = batch_.n_tokens++;
    batch_.token[i] = token;
    batch_.pos[i] = position;
    batch_.n_seq_id[i] = 1 + static_cast<int>(also.size());
    batch_.seq_id[i][0] = branch;
    std::copy(also.begin(), also.end(), batch_.seq_id[i] + 1);
    batch_.logits[i] = wants_row;
  }
  const llama_batch& get() const { return batch_; }

  /// Asks for rows that nobody reads, up to a multiple of four and `most`: ggml multiplies by four at a time, and for
  /// what is left over passes over the whole output layer once more. (Up to four are one pass, or two.)
  void round_rows(int most) {
    int rows = 0;
    for (int i = 0; i < batch_.n_tokens; ++i) rows += batch_.logits[i] != 0 ? 1 : 0;
    if (rows <= 4) return;
    const int to = std::min((rows + 3) / 4 * 4, most);
    for (int i = 0; i < batch_.n_tokens && rows < to; ++i) {
      if (batch_.logits[i] != 0) continue;
      batch_.logits[i] = 1;
      ++rows;
    }
  }

 private:
  llama_batch batch_;
  int capacity_;
};

void decode(llama_context* context, const Batch& batch) {
  take_llama_error();
  const int status = llama_decode(context, batch.get());
  if (status == 1) {
    throw Error(
        fmt::format("out of context space: {} cells are too few for all branches together", llama_n_ctx(context)));
  }
  if (status != 0)
    throw Error(fmt::format("llama.cpp failed to evaluate {} tokens: {}", batch.size(), take_llama_error()));
}

std::vector<std::uint8_t> save_sequence(llama_context* context, Branch branch, llama_state_seq_flags what = 0) {
  std::vector<std::uint8_t> bytes(llama_state_seq_get_size_ext(context, branch, what));
  if (llama_state_seq_get_data_ext(context, bytes.data(), bytes.size(), branch, what) != bytes.size()) {
    throw Error("llama.cpp failed to save the state of a branch");
  }
  return bytes;
}

bool load_sequence(llama_context* context, Branch branch, std::span<const std::uint8_t> bytes,
                   llama_state_seq_flags what = 0) {
  return llama_state_seq_set_data_ext(context, bytes.data(), bytes.size(), branch, what) == bytes.size();
}

/// Gives `to` cells of its own in the layers that slide, with what `from` has there; `from` may be `to`.
bool copy_window(llama_context* context, Branch from, Branch to) {
  constexpr llama_state_seq_flags kWindow = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
  return load_sequence(context, to, save_sequence(context, from, kWindow), kWindow);
}

}  // namespace

struct LlamaDecoder::State {
  LlamaModel model;
  LlamaDecoderOptions options;
  llama_context_params params{};
  Context context;
  Batch batch;
  std::vector<int> lengths;  // tokens of each branch; -1 where none lives
  std::vector<std::vector<Row>> rows;
  std::vector<float> kept_scores;  // of rows from all but one of several calls

  State(const LlamaModel& of, const LlamaDecoderOptions& with)
      : model(of),
        options(with),
        batch(batch_capacity(with), with.max_branches),
        lengths(static_cast<std::size_t>(with.max_branches), -1),
        rows(static_cast<std::size_t>(with.max_branches)) {}

  Context make_context(const llama_context_params& with) const {
    take_llama_error();
    Context made(llama_init_from_model(model.state_->model.get(), with));
    if (!made) throw Error(fmt::format("cannot make a context of {} cells: {}", with.n_ctx, take_llama_error()));
    return made;
  }

  /// Whether some layers keep the cells of a window only.
  bool slides() const { return !options.full_sliding_window && llama_model_n_swa(model.state_->model.get()) > 0; }

  void check_alive(Branch branch, const char* function) const {
    if (branch < 0 || branch >= options.max_branches || lengths[static_cast<std::size_t>(branch)] < 0) {
      throw std::invalid_argument(fmt::format("[{}] branch {} does not live", function, branch));
    }
  }

  Branch fork(Branch branch, bool own_window) {
    check_alive(branch, "LlamaDecoder::fork");
    const Branch copy = take_branch("LlamaDecoder::fork");
    lengths[static_cast<std::size_t>(copy)] = lengths[static_cast<std::size_t>(branch)];
    try {
      copy_cells(branch, copy, own_window);
    } catch (...) {
      close(copy);
      throw;
    }
    return copy;
  }

  void close(Branch branch) {
    check_alive(branch, "LlamaDecoder::close");
    llama_memory_seq_rm(llama_get_memory(context.get()), branch, -1, -1);
    lengths[static_cast<std::size_t>(branch)] = -1;
    rows[static_cast<std::size_t>(branch)].clear();
  }

  Branch take_branch(const char* function) {
    const auto free = std::find(lengths.begin(), lengths.end(), -1);
    if (free == lengths.end()) {
      throw std::invalid_argument(fmt::format("[{}] all {} branches live already", function, options.max_branches));
    }
    *free = 0;
    return static_cast<Branch>(free - lengths.begin());
  }

  void check_tokens(std::span<const Token> tokens, int before, const char* function) const {
    if (before + static_cast<std::int64_t>(tokens.size()) > options.window) {
      throw std::invalid_argument(fmt::format("[{}] {} tokens after {} outgrow the window of {}", function,
                                              tokens.size(), before, options.window));
    }
    const int size = model.vocabulary().size();
    for (const Token token : tokens) {
      if (token < 0 || token >= size)
        throw std::invalid_argument(fmt::format("[{}] token {} outside [0, {})", function, token, size));
    }
  }

  void check(std::span<const Extension> extensions, bool shares) const {
    constexpr const char* kFunction = "LlamaDecoder::extend";
    std::vector<bool> named(lengths.size(), false);
    std::vector<int> after = lengths;
    for (const Extension& e : extensions) {
      check_alive(e.branch, kFunction);
      const auto branch = static_cast<std::size_t>(e.branch);
      if (named[branch]) throw std::invalid_argument(fmt::format("[{}] branch {} is named twice", kFunction, e.branch));
      if (e.tokens.empty())
        throw std::invalid_argument(fmt::format("[{}] no tokens for branch {}", kFunction, e.branch));
      check_tokens(e.tokens, after[branch], kFunction);
      named[branch] = true;
      if (!e.also.empty() && !shares)
        throw std::invalid_argument(fmt::format("[{}] branches of this decoder share no tokens", kFunction));
      for (const Branch also : e.also) {
        check_alive(also, kFunction);
        int& length = after[static_cast<std::size_t>(also)];
        if (named[static_cast<std::size_t>(also)] || length != after[branch]) {
          throw std::invalid_argument(
              fmt::format("[{}] branch {} does not hold what branch {} does", kFunction, also, e.branch));
        }
        length += static_cast<int>(e.tokens.size());
      }
      after[branch] += static_cast<int>(e.tokens.size());
    }
  }

  /// `own_window`: whether the copy gets cells of its own in the layers that slide.
  void copy_cells(Branch from, Branch to, bool own_window) {
    const llama_memory_t memory = llama_get_memory(context.get());
    const int length = lengths[static_cast<std::size_t>(from)];
    bool copied = true;
    if (options.streams) {
      // llama.cpp's own copy is made only by the next evaluation: a state loaded before that would be lost or spread.
      copied = length == 0 || load_sequence(context.get(), to, save_sequence(context.get(), from));
    } else if (!slides() || length == 0) {
      llama_memory_seq_cp(memory, from, to, -1, -1);
    } else if (own_window) {
      // llama.cpp frees no shared cell that slid out of the window, and would run out of them.
      llama_memory_seq_cp(memory, from, to, -1, -1);
      copied = copy_window(context.get(), from, to);
      // What slid out but was not overwritten yet is not copied; branches that share tokens must begin alike.
      if (copied && llama_memory_seq_pos_min(memory, from) != llama_memory_seq_pos_min(memory, to))
        copied = copy_window(context.get(), from, from);
    } else {
      // What slid out but was not overwritten yet would be shared too: another window of it at most.
      const int window = llama_model_n_swa(model.state_->model.get());
      if (length - llama_memory_seq_pos_min(memory, from) > 2 * window) copied = copy_window(context.get(), from, from);
      llama_memory_seq_cp(memory, from, to, -1, -1);
    }
    if (!copied) throw Error(fmt::format("llama.cpp failed to copy branch {}: {}", from, take_llama_error()));
  }

  /// Appends to one sequence in chunks counted from the first of `tokens`, without rows.
  void evaluate(llama_context* in, Branch sequence, std::span<const Token> tokens,
                const std::function<void(int)>& after_chunk) {
    for (std::size_t done = 0; done < tokens.size();) {
      const std::size_t end = std::min(tokens.size(), done + static_cast<std::size_t>(options.chunk));
      batch.clear();
      for (; done < end; ++done) batch.add(tokens[done], static_cast<int>(done), sequence, false);
      decode(in, batch);
      after_chunk(batch.size());
    }
  }

  /// All that the bits of a text's state depend on.
  std::string state_key(std::span<const Token> tokens) const {
    const XXH128_hash_t hash = XXH3_128bits(tokens.data(), tokens.size_bytes());
    return fmt::format(
        "model {}\nengine {} {} {}\ncache K {} V {} {} flash {} sliding {}\nlayout {}\nchunk {}\nthreads {}\noffload "
        "{}\ntokens {} {:016x}{:016x}\n",
        model.fingerprint(), llama_version(), ggml_commit(), llama_print_system_info(), ggml_type_name(params.type_k),
        ggml_type_name(params.type_v), params.offload_kqv ? "offloaded" : "host",
        options.flash_attention ? "on" : "off", options.full_sliding_window ? "full" : "window",
        options.streams ? fmt::format("streams {}", options.max_branches) : std::string("unified"), options.chunk,
        options.threads, model.state_->devices, tokens.size(), hash.high64, hash.low64);
  }
};

LlamaDecoder::LlamaDecoder(const LlamaModel& model, const LlamaDecoderOptions& options) {
  const auto require = [](bool ok, const std::string& problem) {
    if (!ok) throw std::invalid_argument("[LlamaDecoder] " + problem);
  };
  require(!model.state_->vocabulary_only, "the model was loaded without its weights");
  require(options.max_branches >= 1 && options.max_branches <= kMaxLlamaBranches,
          fmt::format("max_branches = {} outside [1, {}], llama.cpp's limit on sequences", options.max_branches,
                      kMaxLlamaBranches));
  require(options.window >= 0 && options.window <= kMaxLlamaWindow,
          fmt::format("window = {} outside [0, {}]", options.window, kMaxLlamaWindow));
  require(options.cells >= 0 && options.cells <= (std::int64_t{1} << 30),
          fmt::format("cells = {} outside [0, 2^30]", options.cells));
  require(options.threads >= 0 && options.threads <= kMaxLlamaThreads,
          fmt::format("threads = {} outside [0, {}]", options.threads, kMaxLlamaThreads));
  require(options.chunk >= 1 && options.chunk <= 65536, fmt::format("chunk = {} outside [1, 65536]", options.chunk));

  LlamaDecoderOptions settled = options;
  if (settled.window == 0) settled.window = model.trained_window();
  if (settled.threads == 0) settled.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const std::int64_t whole = static_cast<std::int64_t>(pad_cells(settled.window)) * settled.max_branches;
  if (settled.cells == 0 || settled.streams) settled.cells = whole;
  require(settled.cells <= (std::int64_t{1} << 30),
          fmt::format("{} branches of {} tokens are too many cells", settled.max_branches, settled.window));

  state_ = std::make_unique<State>(model, settled);
  llama_context_params& params = state_->params;
  params = llama_context_default_params();
  params.n_ctx = pad_cells(settled.cells);
  params.n_batch = static_cast<std::uint32_t>(batch_capacity(settled));
  params.n_ubatch = static_cast<std::uint32_t>(settled.chunk);
  params.n_seq_max = static_cast<std::uint32_t>(settled.max_branches);
  params.n_outputs_max = static_cast<std::uint32_t>(std::max(settled.max_branches, kMinRows));
  params.n_outputs_max_per_seq = params.n_outputs_max;
  params.n_threads = params.n_threads_batch = settled.threads;
  params.flash_attn_type = settled.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.swa_full = settled.full_sliding_window;
  params.kv_unified = !settled.streams;
  params.no_perf = true;
  state_->context = state_->make_context(params);
}

LlamaDecoder::~LlamaDecoder() = default;

const Vocabulary& LlamaDecoder::vocabulary() const { return state_->model.vocabulary(); }
int LlamaDecoder::max_branches() const { return state_->options.max_branches; }
int LlamaDecoder::window() const { return state_->options.window; }

int LlamaDecoder::length(Branch branch) const {
  state_->check_alive(branch, "LlamaDecoder::length");
  return state_->lengths[static_cast<std::size_t>(branch)];
}

bool LlamaDecoder::shares() const {
  const llama_model* model = state_->model.state_->model.get();
  if (state_->options.streams || llama_model_is_recurrent(model) || llama_model_is_hybrid(model)) return false;
  // llama.cpp gives no shared cell back when it slides out of the window: there must be room for all of them.
  return !state_->slides() || llama_model_n_swa(model) * state_->options.max_branches >= kMostShared;
}

Branch LlamaDecoder::open() { return state_->take_branch("LlamaDecoder::open"); }

Branch LlamaDecoder::fork(Branch branch) { return state_->fork(branch, true); }
Branch LlamaDecoder::fork_briefly(Branch branch) { return state_->fork(branch, false); }
void LlamaDecoder::close(Branch branch) { state_->close(branch); }

std::vector<Branch> LlamaDecoder::read(std::span<const std::vector<Token>> texts, StateStore* store,
                                       const Progress& progress, const std::function<void(const std::string&)>& note) {
  State& s = *state_;
  const auto living = std::count_if(s.lengths.begin(), s.lengths.end(), [](int length) { return length >= 0; });
  if (static_cast<std::size_t>(living) + texts.size() > static_cast<std::size_t>(max_branches())) {
    throw std::invalid_argument(fmt::format("[LlamaDecoder::read] {} texts and {} living branches exceed {}",
                                            texts.size(), living, max_branches()));
  }
  std::int64_t total = 0, done = 0;
  std::size_t longest = 0;
  for (const auto& text : texts) {
    s.check_tokens(text, 0, "LlamaDecoder::read");
    total += static_cast<std::int64_t>(text.size());
    longest = std::max(longest, text.size());
  }
  const auto advance = [&](int tokens) { progress.step("reading documents", done += tokens, total); };
  bool keeps = store != nullptr;
  const auto keep = [&](const std::string& key, std::span<const std::uint8_t> bytes) {
    try {
      store->save(key, bytes);
    } catch (const Error& error) {  // the answer does not need it
      keeps = false;
      if (note) note(fmt::format("{}; going on without keeping what is read", error.what()));
    }
  };

  // In one cache for all, a text is evaluated in a cache of its own and copied over: beside others its cells would lie
  // elsewhere, sums would run in another order, and attention would pass over the cells of all texts before it.
  Context alone;
  std::vector<Branch> branches;
  try {
    for (const auto& text : texts) {
      const Branch branch = branches.emplace_back(open());
      if (text.empty()) continue;
      const std::string key = store ? s.state_key(text) : std::string();
      const auto kept = store ? store->load(key) : std::nullopt;
      if (kept && load_sequence(s.context.get(), branch, *kept)) {
        advance(static_cast<int>(text.size()));
      } else {
        llama_context* in = s.context.get();
        Branch sequence = branch;
        if (!s.options.streams) {
          if (!alone) {
            llama_context_params params = s.params;
            params.n_ctx = pad_cells(static_cast<std::int64_t>(longest));
            params.n_seq_max = 1;
            alone = s.make_context(params);
          }
          llama_memory_clear(llama_get_memory(alone.get()), false);
          in = alone.get();
          sequence = 0;
        }
        s.evaluate(in, sequence, text, advance);
        // Cells of a window lie where evaluation left them; of a loaded state, at the start.
        if (s.options.streams && s.slides() && !copy_window(in, sequence, sequence)) {
          throw Error(fmt::format("llama.cpp failed to move a document's window: {}", take_llama_error()));
        }
        if (keeps || !s.options.streams) {
          const std::vector<std::uint8_t> bytes = save_sequence(in, sequence);
          if (keeps) keep(key, bytes);
          if (!s.options.streams && !load_sequence(s.context.get(), branch, bytes)) {
            throw Error(fmt::format("out of context space: {} cells are too few for all documents",
                                    llama_n_ctx(s.context.get())));
          }
        }
      }
      s.lengths[static_cast<std::size_t>(branch)] = static_cast<int>(text.size());
    }
  } catch (...) {
    for (const Branch branch : branches) close(branch);
    throw;
  }
  return branches;
}

void LlamaDecoder::extend(std::span<const Extension> extensions) {
  State& s = *state_;
  s.check(extensions, shares());
  for (auto& rows : s.rows) rows.clear();
  s.kept_scores.clear();

  const auto size = static_cast<std::size_t>(vocabulary().size());
  std::vector<Row*> found;                           // all rows, to be normalised at the end
  std::vector<std::pair<int, Branch>> wanted;        // (index in the batch, branch) of the batch at hand
  std::vector<std::pair<Branch, std::size_t>> kept;  // rows copied out, by offset in kept_scores
  s.batch.clear();

  const auto evaluate = [&](bool last) {
    s.batch.round_rows(static_cast<int>(s.params.n_outputs_max));
    decode(s.context.get(), s.batch);
    for (int i = 0; i < s.batch.size(); ++i) {  // only now: a batch that fails has added nothing
      for (int k = 0; k < s.batch.get().n_seq_id[i]; ++k)
        s.lengths[static_cast<std::size_t>(s.batch.get().seq_id[i][k])] = s.batch.get().pos[i] + 1;
    }
    for (const auto& [index, branch] : wanted) {
      const float* scores = llama_get_logits_ith(s.context.get(), index);
      if (!scores) throw Error("llama.cpp left no row where one was asked for");
      auto& rows = s.rows[static_cast<std::size_t>(branch)];
      if (last && kept.empty()) {  // one call: its rows stay where they are
        rows.push_back({{scores, size}, 0});
      } else {
        kept.emplace_back(branch, s.kept_scores.size());
        s.kept_scores.insert(s.kept_scores.end(), scores, scores + size);
      }
    }
    wanted.clear();
    s.batch.clear();
  };

  std::vector<int> lengths = s.lengths;  // with what waits in the batch
  for (const Extension& e : extensions) {
    int& position = lengths[static_cast<std::size_t>(e.branch)];
    for (std::size_t i = 0; i < e.tokens.size(); ++i) {
      const bool row = e.rows == Rows::all || (e.rows == Rows::last && i + 1 == e.tokens.size());
      if (s.batch.full() || (row && wanted.size() == s.params.n_outputs_max)) evaluate(false);
      if (row) wanted.emplace_back(s.batch.size(), e.branch);
      s.batch.add(e.tokens[i], position++, e.branch, row, e.also);
    }
    for (const Branch branch : e.also) lengths[static_cast<std::size_t>(branch)] = position;
  }
  if (s.batch.size() > 0) evaluate(true);
  for (const auto& [branch, offset] : kept) {
    s.rows[static_cast<std::size_t>(branch)].push_back({{s.kept_scores.data() + offset, size}, 0});
  }

  for (auto& rows : s.rows) {
    for (Row& row : rows) found.push_back(&row);
  }
  parallel_for(static_cast<std::int64_t>(found.size()), [&](std::int64_t i) {
    Row& row = *found[static_cast<std::size_t>(i)];
    row.log_total = log_sum_exp(row.scores);
  });
  for (const Row* row : found) {
    if (std::isfinite(row->log_total)) continue;
    for (auto& rows : s.rows) rows.clear();
    throw Error("the model's output is not finite");
  }
}

std::span<const Row> LlamaDecoder::rows(Branch branch) const {
  state_->check_alive(branch, "LlamaDecoder::rows");
  const auto& rows = state_->rows[static_cast<std::size_t>(branch)];
  if (rows.empty())
    throw std::invalid_argument(fmt::format("[LlamaDecoder::rows] the latest extension left branch {} no row", branch));
  return rows;
}

}  // namespace tuiqiao

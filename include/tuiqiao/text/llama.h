#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/progress.h"
#include "tuiqiao/text/decoder.h"
#include "tuiqiao/text/state_store.h"

namespace tuiqiao {

struct LlamaModelOptions {
  /// Layers kept on accelerators; negative for all, 0 for none.
  int gpu_layers = -1;
  /// "host:port" of llama.cpp RPC servers that hold a share of the layers; none by default. IPv4 names and addresses.
  std::vector<std::string> rpc_servers;
  /// Loads the vocabulary without the weights: all but decoders over it works. Default: no.
  bool vocabulary_only = false;
};

/// A GGUF model and its vocabulary. Copies share the same weights.
/// Threads: const members may be called at once.
class LlamaModel {
 public:
  /// Checks the file's header, then loads it. llama.cpp's own log is silenced for the process; its last error becomes
  /// part of the exception.
  /// Throws: tuiqiao::Error "FILE: ..." when it is missing, not GGUF, damaged or of an unknown architecture, or when an
  /// RPC server does not answer; Interrupted.
  explicit LlamaModel(const std::filesystem::path& file, const LlamaModelOptions& options = {},
                      const Progress& progress = {});

  const Vocabulary& vocabulary() const;
  /// The window it was trained with, in tokens.
  int trained_window() const;
  /// How far back layers with a sliding window see, in tokens; 0 where all see everything.
  int sliding_window() const;
  /// "gemma3 270M Q4_K - Medium" and such.
  std::string description() const;
  /// What tells this model, as loaded, from others: a hash of sizes, times, header and samples of the weights.
  const std::string& fingerprint() const;
  /// One user's message as the file's own chat template renders it, up to where the model begins to answer. Nothing
  /// when the file has no template. Throws: tuiqiao::Error when llama.cpp does not know the file's template.
  std::optional<std::string> apply_chat_template(const std::string& message) const;
  /// The same with one of llama.cpp's templates by name; nothing when it has none of that name.
  static std::optional<std::string> apply_chat_template(const std::string& name, const std::string& message);
  static std::vector<std::string> chat_template_names();

 private:
  friend class LlamaDecoder;
  struct State;
  std::shared_ptr<State> state_;
};

/// Most branches one LlamaDecoder can keep: llama.cpp's limit on sequences.
inline constexpr int kMaxLlamaBranches = 256;
inline constexpr int kMaxLlamaWindow = 1 << 30;
inline constexpr int kMaxLlamaThreads = 512;

struct LlamaDecoderOptions {
  /// Branches alive at once, 1 to kMaxLlamaBranches.
  int max_branches = 1;
  /// Tokens a branch may hold, at most kMaxLlamaWindow; 0 for the window the model was trained with.
  int window = 0;
  /// Tokens kept in all; what forks share counts once. 0 for window * max_branches. Not used with `streams`.
  std::int64_t cells = 0;
  /// A buffer of its own for each branch, instead of one for all: each token then attends over its own branch only,
  /// which is faster with many branches. Costs window tokens of memory a branch, and a copy of its cells a fork.
  bool streams = false;
  /// Keeps the whole window in sliding-window layers too. Not needed here, since nothing is rolled back.
  bool full_sliding_window = false;
  /// Off by default: rows are then the same bits whatever else lies in the cache.
  bool flash_attention = false;
  /// At most kMaxLlamaThreads; 0 for all processors.
  int threads = 0;
  /// Tokens evaluated together, and the length of the chunks in which documents are read. Part of the key of a state.
  int chunk = 512;
};

/// A Decoder over llama.cpp: branches are sequences of one key-value cache. Nothing is rolled back, and every limit is
/// checked before llama.cpp is called. Keeps the model alive.
class LlamaDecoder final : public Decoder {
 public:
  /// Throws: std::invalid_argument on an option outside its domain; tuiqiao::Error when the memory cannot be had.
  LlamaDecoder(const LlamaModel& model, const LlamaDecoderOptions& options);
  ~LlamaDecoder() override;

  /// A new, empty branch. Throws: std::invalid_argument when max_branches() live already.
  Branch open();
  /// A new branch for each text, each evaluated by itself in chunks counted from its own start: a text's part of the
  /// cache is the same bits whatever the others are, and whether it was evaluated now or loaded from `store`.
  /// Texts may be empty. `what` names the work in the progress, counted in tokens. Once the store cannot keep a state
  /// (a full disk), `note` hears why and no more is kept by this call; states that it has are still loaded.
  /// Throws: as extend, for all texts before any work; Interrupted (texts already kept in the store stay there).
  std::vector<Branch> read(std::span<const std::vector<Token>> texts, StateStore* store = nullptr,
                           const Progress& progress = {},
                           const std::function<void(const std::string& line)>& note = {});

  const Vocabulary& vocabulary() const override;
  int max_branches() const override;
  int window() const override;
  int length(Branch branch) const override;
  /// In one cache for all branches, unless the model is recurrent or a hybrid of such, or slides over a small window.
  bool shares() const override;
  Branch fork(Branch branch) override;
  Branch fork_briefly(Branch branch) override;
  void close(Branch branch) override;
  using Decoder::extend;
  /// As Decoder::extend. What had been evaluated before a tuiqiao::Error counts: length() tells how much of each
  /// extension that is, and no branch is sure to have rows.
  void extend(std::span<const Extension> extensions) override;
  std::span<const Row> rows(Branch branch) const override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tuiqiao

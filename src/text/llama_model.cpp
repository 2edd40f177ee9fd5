#include <fmt/format.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "gguf_check.h"
#include "llama_state.h"
#include "rpc_probe.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

namespace fs = std::filesystem;

std::mutex log_mutex;
std::string log_error;

void keep_errors(ggml_log_level level, const char* text, void*) {
  if (level != GGML_LOG_LEVEL_ERROR) return;
  std::string line(text);
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.pop_back();
  std::replace(line.begin(), line.end(), '\n', ' ');
  // The first error says what went wrong; later ones repeat it from further out.
  const std::scoped_lock lock(log_mutex);
  if (log_error.empty()) log_error = line;
}

void start_engine() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(keep_errors, nullptr);
    llama_backend_init();
  });
}

/// The file itself, or all parts of a model that is split over several.
std::vector<fs::path> parts_of(const fs::path& file) {
  const std::string path = file.string();
  const std::size_t at = path.rfind("-of-");
  if (at == std::string::npos || at < 6 || path.size() != at + 14 || !path.ends_with(".gguf")) return {file};
  const std::string number = path.substr(at - 5, 5), count = path.substr(at + 4, 5);
  const auto digits = [](const std::string& s) { return s.find_first_not_of("0123456789") == std::string::npos; };
  if (!digits(number) || !digits(count) || std::stoi(number) != 1) return {file};
  std::vector<fs::path> parts;
  for (int i = 1; i <= std::stoi(count); ++i) {
    parts.emplace_back(fmt::format("{}{:05}-of-{}.gguf", path.substr(0, at - 5), i, count));
  }
  // A count of 0 names no part: the file itself is checked then.
  return parts.empty() ? std::vector<fs::path>{file} : parts;
}

/// Size, time, the first bytes (the header of most models) and samples of the rest of every part. A changed file has
/// another time; a copy with another time is read as another model, which costs time but never a wrong answer.
std::string fingerprint_of(const std::vector<fs::path>& parts) {
  constexpr std::uint64_t kHead = std::uint64_t{8} << 20, kSample = std::uint64_t{64} << 10, kSamples = 64;
  XXH3_state_t* hash = XXH3_createState();
  XXH3_128bits_reset(hash);
  std::vector<char> buffer(kHead);
  for (const fs::path& part : parts) {
    std::ifstream in(part, std::ios::binary);
    const std::uint64_t size = fs::file_size(part);
    const auto time = fs::last_write_time(part).time_since_epoch().count();
    XXH3_128bits_update(hash, &size, sizeof size);
    XXH3_128bits_update(hash, &time, sizeof time);
    const auto add = [&](std::uint64_t offset, std::uint64_t length) {
      in.clear();
      in.seekg(static_cast<std::streamoff>(offset));
      in.read(buffer.data(), static_cast<std::streamsize>(std::min(length, size - offset)));
      XXH3_128bits_update(hash, buffer.data(), static_cast<std::size_t>(in.gcount()));
    };
    add(0, kHead);
    for (std::uint64_t i = 1; i <= kSamples; ++i) add(size / (kSamples + 1) * i, kSample);
  }
  const XXH128_hash_t digest = XXH3_128bits_digest(hash);
  XXH3_freeState(hash);
  return fmt::format("{:016x}{:016x}", digest.high64, digest.low64);
}

/// The devices a model may use: the RPC servers asked for, then local accelerators. RPC servers stay registered for the
/// whole process, so the list is explicit: a model gets no server that it did not ask for.
std::vector<ggml_backend_dev_t> devices_for(const std::vector<std::string>& rpc_servers) {
  std::vector<ggml_backend_dev_t> devices;
  if (!rpc_servers.empty()) {
    ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
    using AddServer = ggml_backend_reg_t (*)(const char* endpoint);
    const auto add_server =
        rpc ? reinterpret_cast<AddServer>(ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server"))
            : nullptr;
    if (!add_server) throw Error("this llama.cpp was built without its RPC backend (GGML_RPC)");
    for (const std::string& server : rpc_servers) {
      probe_rpc_server(server);
      ggml_backend_reg_t reg = add_server(server.c_str());
      if (!reg) throw Error(fmt::format("RPC server {}: has no devices", server));
      for (std::size_t i = 0; i < ggml_backend_reg_dev_count(reg); ++i)
        devices.push_back(ggml_backend_reg_dev_get(reg, i));
    }
  }
  for (std::size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    ggml_backend_dev_t device = ggml_backend_dev_get(i);
    if (ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_GPU) devices.push_back(device);
  }
  devices.push_back(nullptr);
  return devices;
}

TokenKind kind_of(llama_token_attr attributes, bool has_bytes) {
  if (attributes & LLAMA_TOKEN_ATTR_CONTROL) return TokenKind::control;
  if (attributes & (LLAMA_TOKEN_ATTR_UNKNOWN | LLAMA_TOKEN_ATTR_UNUSED)) return TokenKind::unused;
  if (attributes & LLAMA_TOKEN_ATTR_BYTE) return TokenKind::byte;
  return has_bytes ? TokenKind::text : TokenKind::unused;
}

std::string piece_of(const llama_vocab* vocab, Token token, bool special) {
  std::string piece(32, '\0');
  int size = llama_token_to_piece(vocab, token, piece.data(), static_cast<int>(piece.size()), 0, special);
  if (size < 0) {
    piece.resize(static_cast<std::size_t>(-size));
    size = llama_token_to_piece(vocab, token, piece.data(), static_cast<int>(piece.size()), 0, special);
  }
  piece.resize(static_cast<std::size_t>(std::max(size, 0)));
  return piece;
}

std::vector<Vocabulary::Entry> entries_of(const llama_vocab* vocab) {
  std::vector<Vocabulary::Entry> entries(static_cast<std::size_t>(llama_vocab_n_tokens(vocab)));
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto token = static_cast<Token>(i);
    Vocabulary::Entry& entry = entries[i];
    entry.bytes = piece_of(vocab, token, false);
    entry.kind = kind_of(llama_vocab_get_attr(vocab, token), !entry.bytes.empty());
    if (entry.kind == TokenKind::control) entry.name = piece_of(vocab, token, true);
    if (entry.kind == TokenKind::control || entry.kind == TokenKind::unused) entry.bytes.clear();
    entry.ends = llama_vocab_is_eog(vocab, token);
  }
  return entries;
}

Tokenization tokenization_of(const llama_vocab* vocab) {
  switch (llama_vocab_type(vocab)) {
    case LLAMA_VOCAB_TYPE_SPM:   // merges of the best pair anywhere
    case LLAMA_VOCAB_TYPE_RWKV:  // the longest token each time
      return Tokenization::local;
    case LLAMA_VOCAB_TYPE_BPE:
      return Tokenization::looks_ahead;
    default:  // WordPiece, unigrams: lower case, accents and spaces are lost
      return Tokenization::normalises;
  }
}

Vocabulary::Tokenizer tokenizer_of(const llama_vocab* vocab) {
  return [vocab](std::string_view text, bool special) {
    if (text.empty()) return std::vector<Token>{};
    const int length = static_cast<int>(text.size());
    std::vector<Token> tokens(text.size() / 3 + 16);
    int count = 0;
    try {
      count =
          llama_tokenize(vocab, text.data(), length, tokens.data(), static_cast<int>(tokens.size()), false, special);
      if (count < 0) {
        tokens.resize(static_cast<std::size_t>(-count));
        count = llama_tokenize(vocab, text.data(), length, tokens.data(), -count, false, special);
      }
    } catch (const std::out_of_range&) {
      throw Error("the model's vocabulary has no token for a byte of the text");
    }
    tokens.resize(static_cast<std::size_t>(count));
    return tokens;
  };
}

struct LoadProgress {
  const Progress& progress;
  bool stopped = false;

  static bool report(float fraction, void* self) {
    auto& load = *static_cast<LoadProgress*>(self);
    if (load.progress.report) load.progress.report("loading model", static_cast<std::int64_t>(fraction * 100), 100);
    load.stopped = load.progress.stop.stop_requested();
    return !load.stopped;
  }
};

std::optional<std::string> render_chat(const char* chat_template, const std::string& message) {
  const llama_chat_message chat{"user", message.c_str()};
  const int size = llama_chat_apply_template(chat_template, &chat, 1, true, nullptr, 0);
  if (size < 0) return std::nullopt;
  std::string text(static_cast<std::size_t>(size) + 1, '\0');
  llama_chat_apply_template(chat_template, &chat, 1, true, text.data(), size + 1);
  text.resize(static_cast<std::size_t>(size));
  return text;
}

}  // namespace

std::string take_llama_error() {
  const std::scoped_lock lock(log_mutex);
  return std::exchange(log_error, {});
}

LlamaModel::LlamaModel(const fs::path& file, const LlamaModelOptions& options, const Progress& progress)
    : state_(std::make_shared<State>()) {
  const std::vector<fs::path> parts = parts_of(file);
  for (const fs::path& part : parts) check_gguf(part);
  start_engine();

  std::vector<ggml_backend_dev_t> devices = devices_for(options.rpc_servers);
  LoadProgress load{progress};
  llama_model_params params = llama_model_default_params();
  // ggml's AMX code crashes in its first product: github.com/ggml-org/llama.cpp/issues/20824.
  if (std::string_view(llama_print_system_info()).find("AMX_INT8 = 1") != std::string_view::npos)
    params.use_extra_bufts = false;
  params.devices = devices.data();
  params.n_gpu_layers = options.gpu_layers;
  params.vocab_only = state_->vocabulary_only = options.vocabulary_only;
  params.progress_callback = LoadProgress::report;
  params.progress_callback_user_data = &load;

  take_llama_error();
  state_->model.reset(llama_model_load_from_file(file.c_str(), params));
  if (load.stopped) throw Interrupted();
  if (!state_->model) throw Error(fmt::format("{}: llama.cpp cannot load it: {}", file.string(), take_llama_error()));

  const llama_model* model = state_->model.get();
  const llama_vocab* vocab = llama_model_get_vocab(model);
  if (!llama_model_has_decoder(model) || llama_model_has_encoder(model)) {
    throw Error(fmt::format("{}: {} has an encoder; only models that continue a text can be used", file.string(),
                            description()));
  }
  if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE || llama_vocab_n_tokens(vocab) == 0) {
    throw Error(fmt::format("{}: has no vocabulary", file.string()));
  }
  std::optional<Token> begin;
  if (llama_vocab_get_add_bos(vocab) && llama_vocab_bos(vocab) != LLAMA_TOKEN_NULL) begin = llama_vocab_bos(vocab);
  state_->vocabulary.emplace(entries_of(vocab), tokenizer_of(vocab), begin, tokenization_of(vocab));
  state_->fingerprint = fingerprint_of(parts);
  state_->devices = fmt::format("{} layers on", options.gpu_layers);
  for (ggml_backend_dev_t device : devices) {
    if (device)
      state_->devices += fmt::format(" {} ({})", ggml_backend_dev_name(device), ggml_backend_dev_description(device));
  }
}

const Vocabulary& LlamaModel::vocabulary() const { return *state_->vocabulary; }

int LlamaModel::sliding_window() const { return llama_model_n_swa(state_->model.get()); }
int LlamaModel::trained_window() const { return llama_model_n_ctx_train(state_->model.get()); }

std::string LlamaModel::description() const {
  std::array<char, 256> text{};
  llama_model_desc(state_->model.get(), text.data(), text.size());
  return text.data();
}

const std::string& LlamaModel::fingerprint() const { return state_->fingerprint; }

std::optional<std::string> LlamaModel::apply_chat_template(const std::string& message) const {
  const char* own = llama_model_chat_template(state_->model.get(), nullptr);
  if (!own) return std::nullopt;
  auto text = render_chat(own, message);
  if (!text)
    throw Error("the model's chat template is none that llama.cpp knows; give one by --template (a name or a file)");
  return text;
}

std::optional<std::string> LlamaModel::apply_chat_template(const std::string& name, const std::string& message) {
  const auto names = chat_template_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) return std::nullopt;
  return render_chat(name.c_str(), message);
}

std::vector<std::string> LlamaModel::chat_template_names() {
  std::vector<const char*> names(static_cast<std::size_t>(llama_chat_builtin_templates(nullptr, 0)));
  llama_chat_builtin_templates(names.data(), names.size());
  return {names.begin(), names.end()};
}

}  // namespace tuiqiao

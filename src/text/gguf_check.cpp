#include "gguf_check.h"

#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are read as they lie, in little-endian order");

constexpr std::uint64_t kMaxKeyLength = 65535;    // of the GGUF specification
constexpr std::uint64_t kMaxElements = 1U << 30;  // of an array, in ggml
constexpr std::uint64_t kMaxLayers = 512;         // of llama.cpp, as the next
constexpr std::uint64_t kMaxExperts = 1024;
constexpr std::uint64_t kMaxContext = 1U << 24;        // the longest known are 10 million; caches are sized by it
constexpr std::uint64_t kMaxSlidingWindow = 1U << 22;  // times 256 sequences, llama.cpp counts cells in 32 bits
constexpr std::uint64_t kMaxHeads = 65535;      // and of the length of a head: llama.cpp multiplies them in 32 bits
constexpr std::uint64_t kTensorAlignment = 32;  // what ggml asks of mapped memory

// Architectures whose graphs assert that keys are as long as values; of the first list also that all of it is rotated.
constexpr std::string_view kWhollyRotated =
    " apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek dots1 dream ernie4_5 "
    "exaone exaone-moe exaone4 falcon granite granite_swa graniteswitch grok grovemoe hunyuan-moe hunyuan_vl hy_v3 "
    "internlm2 jais2 llada llada-moe llama llama4 maincoder mellum minimax-01 minimax-m2 mistral3 nemotron olmo olmo2 "
    "olmoe orion pangu-embedded plamo pockettts qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe rnd1 seed_oss "
    "smallthinker smollm3 starcoder2 talkie xverse ";
constexpr std::string_view kEquallyLong =
    " afmoe bailingmoe2 bert bitnet bloom chatglm cohere2 command-r dflash eagle3 eurobert glm4 glm4moe gpt2 gptneox "
    "granitehybrid jais laguna minimax-m3 modern-bert mpt muse-glimmer nanbeige nemotron_h neo-bert openelm phi2 phi3 "
    "qwen qwen35 qwen35moe qwen3next qwen4exp refact spark2_5 stablelm starcoder t5 ";

/// A value of a key: of arrays only what a later rule asks for.
struct Value {
  std::uint64_t at = 0;  // where in the file
  gguf_type type = GGUF_TYPE_COUNT;
  gguf_type element = GGUF_TYPE_COUNT;  // of an array
  std::uint64_t count = 1;
  std::uint64_t bits = 0;              // of a number
  std::string text;                    // of a string
  std::vector<std::string> texts;      // of the array of tokens
  std::vector<std::uint32_t> numbers;  // of an array of 32-bit integers or bools, one a layer
};

struct Tensor {
  std::uint64_t at = 0;
  std::string name;
  std::uint32_t dimensions = 0;
  std::array<std::int64_t, GGML_MAX_DIMS> shape{1, 1, 1, 1};
  ggml_type type = GGML_TYPE_COUNT;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

struct Header {
  std::string file;
  std::uint64_t file_size = 0;
  std::map<std::string, Value> values;
  std::vector<Tensor> tensors;
  std::uint64_t end = 0;

  const Value* find(const std::string& key) const {
    const auto it = values.find(key);
    return it == values.end() ? nullptr : &it->second;
  }
};

[[noreturn]] void fail(const std::string& file, std::uint64_t at, const std::string& problem) {
  throw Error(fmt::format("{}: damaged at byte {}: {}", file, at, problem));
}

/// A name out of the file, fit for one line of a message.
std::string shown(std::string_view name) {
  std::string text(name.substr(0, 80));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return name.size() > text.size() ? text + "..." : text;
}

/// As llama.cpp reads a string: up to its first zero byte.
std::string cut_at_zero(std::string text) {
  text.resize(std::min(text.size(), text.find('\0')));
  return text;
}

/// Reads a file forwards and believes no length that the file has no bytes for.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& file) : file_(file.string()), buffer_(std::size_t{1} << 20) {
    std::error_code problem;
    const auto status = std::filesystem::status(file, problem);
    if (!std::filesystem::exists(status)) throw Error(file_ + ": no such file");
    if (!std::filesystem::is_regular_file(status)) throw Error(file_ + ": not a GGUF file: not a regular file");
    size_ = std::filesystem::file_size(file, problem);
    in_.rdbuf()->pubsetbuf(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
    in_.open(file, std::ios::binary);
    if (problem || !in_) throw Error(file_ + ": cannot be read");
  }

  const std::string& file() const { return file_; }
  std::uint64_t at() const { return at_; }
  std::uint64_t size() const { return size_; }
  [[noreturn]] void damaged(const std::string& problem) const { fail(file_, at_, problem); }

  void bytes(void* to, std::uint64_t count, const char* what) {
    if (count > size_ - at_) damaged(fmt::format("{} of {} bytes ends beyond the file's {}", what, count, size_));
    if (!in_.read(static_cast<char*>(to), static_cast<std::streamsize>(count))) throw Error(file_ + ": cannot be read");
    at_ += count;
  }
  template <typename T>
  T number(const char* what) {
    T value{};
    bytes(&value, sizeof value, what);
    return value;
  }
  std::string text(const char* what) {
    const auto length = number<std::uint64_t>(what);
    if (length > size_ - at_) damaged(fmt::format("{} of {} bytes ends beyond the file's {}", what, length, size_));
    std::string value(static_cast<std::size_t>(length), '\0');
    bytes(value.data(), length, what);
    return value;
  }
  void skip(std::uint64_t count, const char* what) {
    if (count > size_ - at_) damaged(fmt::format("{} of {} bytes ends beyond the file's {}", what, count, size_));
    // A seek throws the buffer away, so short strings are read over instead.
    if (count < buffer_.size()) {
      in_.ignore(static_cast<std::streamsize>(count));
    } else {
      in_.seekg(static_cast<std::streamoff>(count), std::ios::cur);
    }
    at_ += count;
  }

 private:
  std::string file_;
  std::vector<char> buffer_;
  std::ifstream in_;
  std::uint64_t at_ = 0;
  std::uint64_t size_ = 0;
};

std::uint64_t size_of(gguf_type type) {
  switch (type) {
    case GGUF_TYPE_UINT8:
    case GGUF_TYPE_INT8:
    case GGUF_TYPE_BOOL:
      return 1;
    case GGUF_TYPE_UINT16:
    case GGUF_TYPE_INT16:
      return 2;
    case GGUF_TYPE_UINT32:
    case GGUF_TYPE_INT32:
    case GGUF_TYPE_FLOAT32:
      return 4;
    case GGUF_TYPE_UINT64:
    case GGUF_TYPE_INT64:
    case GGUF_TYPE_FLOAT64:
      return 8;
    default:
      return 0;
  }
}

gguf_type read_type(Reader& in) {
  const std::uint64_t at = in.at();
  const auto type = in.number<std::uint32_t>("a type");
  if (type >= GGUF_TYPE_COUNT) fail(in.file(), at, fmt::format("unknown value type {}", type));
  return static_cast<gguf_type>(type);
}

void read_array(Reader& in, const std::string& key, Value& value) {
  const std::uint64_t at = in.at();
  value.element = read_type(in);
  if (value.element == GGUF_TYPE_ARRAY) fail(in.file(), at, fmt::format("key '{}' is an array of arrays", shown(key)));
  value.count = in.number<std::uint64_t>("a length");
  const std::uint64_t least = value.element == GGUF_TYPE_STRING ? sizeof(std::uint64_t) : size_of(value.element);
  if (value.count > kMaxElements || value.count > (in.size() - in.at()) / least) {
    in.damaged(fmt::format("key '{}' has {} elements, more than the file holds", shown(key), value.count));
  }
  const bool integers = value.element == GGUF_TYPE_UINT32 || value.element == GGUF_TYPE_INT32;
  if (integers && value.count <= kMaxLayers) {
    value.numbers.resize(static_cast<std::size_t>(value.count));
    return in.bytes(value.numbers.data(), value.count * least, "an array");
  }
  if (value.element == GGUF_TYPE_BOOL && value.count <= kMaxLayers) {
    for (std::uint64_t i = 0; i < value.count; ++i) value.numbers.push_back(in.number<std::uint8_t>("an array"));
    return;
  }
  if (value.element != GGUF_TYPE_STRING) return in.skip(value.count * least, "an array");
  const bool kept = key == "tokenizer.ggml.tokens";
  if (kept) value.texts.reserve(static_cast<std::size_t>(value.count));
  for (std::uint64_t i = 0; i < value.count; ++i) {
    if (kept) {
      value.texts.push_back(cut_at_zero(in.text("a string")));
    } else {
      in.skip(in.number<std::uint64_t>("a string"), "a string");
    }
  }
}

void read_value(Reader& in, Header& header) {
  const std::uint64_t at = in.at();
  const std::string key = in.text("a key");
  if (key.empty() || key.size() > kMaxKeyLength) {
    fail(in.file(), at, fmt::format("a key of {} bytes, outside [1, {}]", key.size(), kMaxKeyLength));
  }
  if (key.find('\0') != std::string::npos) fail(in.file(), at, fmt::format("key '{}' has a zero byte", shown(key)));
  Value value;
  value.type = read_type(in);
  value.at = in.at();
  if (value.type == GGUF_TYPE_ARRAY) {
    read_array(in, key, value);
  } else if (value.type == GGUF_TYPE_STRING) {
    value.text = cut_at_zero(in.text("a string"));
  } else {
    in.bytes(&value.bits, size_of(value.type), "a value");
  }
  if (!header.values.emplace(key, std::move(value)).second) {
    fail(in.file(), at, fmt::format("key '{}' twice", shown(key)));
  }
}

void read_type_and_size(Reader& in, Tensor& tensor) {
  const std::uint64_t at = in.at();
  const auto type = in.number<std::uint32_t>("a type");
  const bool known = type < GGML_TYPE_COUNT && ggml_blck_size(static_cast<ggml_type>(type)) > 0;
  if (!known) fail(in.file(), at, fmt::format("tensor '{}' has the unknown type {}", shown(tensor.name), type));
  tensor.type = static_cast<ggml_type>(type);
  const std::int64_t block = ggml_blck_size(tensor.type);
  if (tensor.shape[0] % block != 0) {
    fail(in.file(), at,
         fmt::format("tensor '{}' has rows of {} elements, no multiple of the {} of a block of {}", shown(tensor.name),
                     tensor.shape[0], block, ggml_type_name(tensor.type)));
  }
  auto bytes = static_cast<std::int64_t>(ggml_type_size(tensor.type));
  bool fits = !__builtin_mul_overflow(bytes, tensor.shape[0] / block, &bytes);
  for (int j = 1; j < GGML_MAX_DIMS; ++j) {
    fits = fits && !__builtin_mul_overflow(bytes, tensor.shape[static_cast<std::size_t>(j)], &bytes);
  }
  if (!fits || static_cast<std::uint64_t>(bytes) > in.size()) {
    fail(in.file(), at, fmt::format("tensor '{}' is larger than the file's {} bytes", shown(tensor.name), in.size()));
  }
  tensor.bytes = static_cast<std::uint64_t>(bytes);
}

Tensor read_tensor(Reader& in) {
  Tensor tensor;
  tensor.at = in.at();
  tensor.name = in.text("a tensor's name");
  if (tensor.name.size() >= GGML_MAX_NAME) {
    fail(in.file(), tensor.at,
         fmt::format("a tensor's name of {} bytes, {} or more", tensor.name.size(), GGML_MAX_NAME));
  }
  if (tensor.name.find('\0') != std::string::npos) {
    fail(in.file(), tensor.at, fmt::format("tensor '{}' has a zero byte in its name", shown(tensor.name)));
  }
  tensor.dimensions = in.number<std::uint32_t>("a number of dimensions");
  if (tensor.dimensions > GGML_MAX_DIMS) {
    in.damaged(fmt::format("tensor '{}' has {} dimensions, more than {}", shown(tensor.name), tensor.dimensions,
                           GGML_MAX_DIMS));
  }
  std::int64_t elements = 1;
  for (std::uint32_t j = 0; j < tensor.dimensions; ++j) {
    const std::uint64_t at = in.at();
    tensor.shape[j] = in.number<std::int64_t>("a dimension");
    if (tensor.shape[j] < 1 || __builtin_mul_overflow(elements, tensor.shape[j], &elements)) {
      fail(in.file(), at, fmt::format("tensor '{}' has a dimension of {}", shown(tensor.name), tensor.shape[j]));
    }
  }
  read_type_and_size(in, tensor);
  tensor.offset = in.number<std::uint64_t>("an offset");
  return tensor;
}

void check_version(Reader& in) {
  std::array<char, 4> magic{};
  if (in.size() < magic.size()) throw Error(fmt::format("{}: not a GGUF file: {} bytes", in.file(), in.size()));
  in.bytes(magic.data(), magic.size(), "the magic");
  if (std::string_view(magic.data(), magic.size()) != "GGUF") {
    throw Error(in.file() + ": not a GGUF file: it does not begin with 'GGUF'");
  }
  const std::uint64_t at = in.at();
  const auto version = in.number<std::uint32_t>("the version");
  if (version != 0 && (version & 0xFFFF) == 0) fail(in.file(), at, "written in big-endian order");
  if (version < 2 || version > GGUF_VERSION) {
    fail(in.file(), at, fmt::format("GGUF version {}, outside [2, {}]", version, GGUF_VERSION));
  }
}

/// A count of things of at least `least` bytes each.
std::uint64_t read_count(Reader& in, std::uint64_t least, const char* what) {
  const std::uint64_t at = in.at();
  const auto count = in.number<std::uint64_t>(what);
  if (count > in.size() / least) fail(in.file(), at, fmt::format("{} {}, more than the file holds", count, what));
  return count;
}

Header read_header(Reader& in) {
  constexpr std::uint64_t kLeastTensor = 24, kLeastPair = 13;
  check_version(in);
  Header header;
  header.file = in.file();
  header.file_size = in.size();
  const std::uint64_t tensors = read_count(in, kLeastTensor, "tensors");
  const std::uint64_t pairs = read_count(in, kLeastPair, "keys");
  for (std::uint64_t i = 0; i < pairs; ++i) read_value(in, header);
  std::unordered_set<std::string> names;
  for (std::uint64_t i = 0; i < tensors; ++i) {
    header.tensors.push_back(read_tensor(in));
    const Tensor& tensor = header.tensors.back();
    if (!names.insert(tensor.name).second) {
      fail(header.file, tensor.at, fmt::format("tensor '{}' twice", shown(tensor.name)));
    }
  }
  header.end = in.at();
  return header;
}

void require_type(const Header& header, const std::string& key, gguf_type type) {
  const Value* value = header.find(key);
  if (value && value->type != type) {
    fail(header.file, value->at,
         fmt::format("key '{}' is of type {}, not {}", key, gguf_type_name(value->type), gguf_type_name(type)));
  }
}

/// The number at `key`, if it is there and an u32: llama.cpp refuses other types by itself.
std::optional<std::uint64_t> count_at(const Header& header, const std::string& key) {
  const Value* value = header.find(key);
  if (!value || value->type != GGUF_TYPE_UINT32) return std::nullopt;
  return value->bits;
}

void require_range(const Header& header, const std::string& key, std::uint64_t least, std::uint64_t most) {
  const auto count = count_at(header, key);
  if (count && (*count < least || *count > most)) {
    fail(header.file, header.find(key)->at, fmt::format("key '{}' = {} outside [{}, {}]", key, *count, least, most));
  }
}

/// The same of a number for all layers, or of an array of one a layer.
void require_layer_range(const Header& header, const std::string& key, std::uint64_t least, std::uint64_t most) {
  require_range(header, key, least, most);
  const Value* value = header.find(key);
  for (const std::uint32_t number : value ? value->numbers : std::vector<std::uint32_t>{}) {
    if (number >= least && number <= most) continue;
    fail(header.file, value->at, fmt::format("key '{}' holds {}, outside [{}, {}]", key, number, least, most));
  }
}

void check_places(const Header& header) {
  require_type(header, GGUF_KEY_GENERAL_ALIGNMENT, GGUF_TYPE_UINT32);
  const std::uint64_t alignment = count_at(header, GGUF_KEY_GENERAL_ALIGNMENT).value_or(GGUF_DEFAULT_ALIGNMENT);
  if (!std::has_single_bit(alignment)) {
    fail(header.file, header.find(GGUF_KEY_GENERAL_ALIGNMENT)->at,
         fmt::format("alignment {} is no power of two", alignment));
  }
  const auto padded = [alignment](std::uint64_t size) { return (size + alignment - 1) / alignment * alignment; };
  const std::uint64_t data = padded(header.end);
  std::uint64_t expected = 0;
  for (const Tensor& tensor : header.tensors) {
    const auto wrong = [&](const std::string& problem) {
      fail(header.file, tensor.at, fmt::format("tensor '{}' {}", shown(tensor.name), problem));
    };
    if (tensor.offset != expected) wrong(fmt::format("has offset {}, expected {}", tensor.offset, expected));
    if (data + tensor.offset + tensor.bytes > header.file_size) {
      wrong(fmt::format("ends at byte {}, beyond the file's {}: cut short?", data + tensor.offset + tensor.bytes,
                        header.file_size));
    }
    if ((data + tensor.offset) % kTensorAlignment != 0) {
      wrong(fmt::format("begins at byte {}, no multiple of {}", data + tensor.offset, kTensorAlignment));
    }
    expected += padded(tensor.bytes);
  }
}

/// llama.cpp counts on the tokens' texts being distinct.
void check_distinct(const Header& header, const Value& tokens) {
  std::unordered_set<std::string_view> seen;
  seen.reserve(tokens.texts.size());
  for (const std::string& text : tokens.texts) {
    if (!text.empty() && !seen.insert(text).second) {
      fail(header.file, tokens.at, fmt::format("token '{}' twice", shown(text)));
    }
  }
  for (std::size_t i = 0; i < tokens.texts.size(); ++i) {  // llama.cpp names empty ones so
    if (tokens.texts[i].empty() && seen.contains(fmt::format("[EMPTY_{}]", i))) {
      fail(header.file, tokens.at, fmt::format("token '[EMPTY_{}]' twice", i));
    }
  }
}

void check_beside_tokens(const Header& header, const std::string& key, std::uint64_t tokens, bool floats_too) {
  const Value* value = header.find(key);
  if (!value) return;
  const bool fits = value->type == GGUF_TYPE_ARRAY &&
                    (value->element == GGUF_TYPE_INT32 || (floats_too && value->element == GGUF_TYPE_FLOAT32));
  if (!fits) fail(header.file, value->at, fmt::format("key '{}' is no array of numbers", key));
  if (value->count < tokens) {
    fail(header.file, value->at, fmt::format("key '{}' has {} elements for {} tokens", key, value->count, tokens));
  }
}

void check_tokenizer(const Header& header) {
  for (const char* key : {"model", "pre"})
    require_type(header, fmt::format("tokenizer.ggml.{}", key), GGUF_TYPE_STRING);
  require_type(header, "tokenizer.chat_template", GGUF_TYPE_STRING);
  const Value* model = header.find("tokenizer.ggml.model");
  if (!model || model->text == "no_vocab" || model->text == "none") return;

  const Value* tokens = header.find("tokenizer.ggml.tokens");
  if (!tokens) fail(header.file, model->at, "a tokenizer without tokenizer.ggml.tokens");
  if (tokens->element != GGUF_TYPE_STRING) {
    fail(header.file, tokens->at, "key 'tokenizer.ggml.tokens' is no array of strings");
  }
  if (tokens->count == 0) fail(header.file, tokens->at, "a tokenizer without tokens");
  check_distinct(header, *tokens);
  check_beside_tokens(header, "tokenizer.ggml.scores", tokens->count, true);
  check_beside_tokens(header, "tokenizer.ggml.token_type", tokens->count, false);
  const Value* merges = header.find("tokenizer.ggml.merges");
  if (merges && merges->element != GGUF_TYPE_STRING) {
    fail(header.file, merges->at, "key 'tokenizer.ggml.merges' is no array of strings");
  }
  // Files in use name paddings and separators that do not exist; llama.cpp then goes without.
  for (const char* token : {"bos", "eos", "eot", "eom"}) {
    require_range(header, fmt::format("tokenizer.ggml.{}_token_id", token), 0, tokens->count - 1);
  }
}

void check_heads(const Header& header, const std::string& arch) {
  for (const char* name : {"head_count", "head_count_kv", "key_length", "value_length", "key_length_swa",
                           "value_length_swa", "key_length_mla", "value_length_mla"}) {
    require_layer_range(header, fmt::format("{}.attention.{}", arch, name), 0, kMaxHeads);
  }
  const std::uint64_t heads = count_at(header, arch + ".attention.head_count").value_or(0);
  const std::string shared = arch + ".attention.head_count_kv";
  const std::uint64_t groups = count_at(header, shared).value_or(0);
  if (groups > 0 && heads % groups != 0) {
    fail(header.file, header.find(shared)->at, fmt::format("{} heads share {} keys", heads, groups));
  }
}

/// ggml rotates pairs within a head, and turns forever over none; some architectures rotate nothing and say so.
void check_rotated(const Header& header, const std::string& arch, const char* name, std::uint64_t head) {
  const std::string key = arch + name;
  const std::uint64_t least = arch.starts_with("gemma") ? 2 : 0;
  require_range(header, key, least, head);
  if (count_at(header, key).value_or(0) % 2 == 1) {
    fail(header.file, header.find(key)->at, fmt::format("key '{}' = {} is odd", key, *count_at(header, key)));
  }
}

void check_head_sizes(const Header& header, const std::string& arch) {
  const Value* per_layer = header.find(arch + ".attention.head_count");
  const std::uint64_t first = per_layer && !per_layer->numbers.empty() ? per_layer->numbers[0] : 0;
  const std::uint64_t heads = count_at(header, arch + ".attention.head_count").value_or(first);
  if (heads == 0) return;
  const std::uint64_t size = count_at(header, arch + ".embedding_length").value_or(0) / heads;
  const std::uint64_t key = count_at(header, arch + ".attention.key_length").value_or(size);
  const std::uint64_t value = count_at(header, arch + ".attention.value_length").value_or(size);
  const std::uint64_t rotated = count_at(header, arch + ".rope.dimension_count").value_or(key);
  const std::uint64_t sliding_key = count_at(header, arch + ".attention.key_length_swa").value_or(key);
  check_rotated(header, arch, ".rope.dimension_count", key);
  check_rotated(header, arch, ".rope.dimension_count_swa", sliding_key);
  const std::string name = " " + arch + " ";
  const bool whole = kWhollyRotated.find(name) != std::string_view::npos;
  const bool equal = whole || kEquallyLong.find(name) != std::string_view::npos;
  if ((equal && key != value) || (whole && rotated != value)) {
    fail(header.file, per_layer->at,
         fmt::format("heads with keys of {}, values of {} and {} rotated: {} needs them equal", key, value, rotated,
                     arch));
  }
}

void check_experts(const Header& header, const std::string& arch) {
  const std::string key = arch + ".expert_count";
  require_range(header, key, 0, kMaxExperts);
  const std::uint64_t experts = count_at(header, key).value_or(0);
  const std::string used = arch + ".expert_used_count", groups = arch + ".expert_group_count";
  if (experts > 0 && !header.find(used)) {
    fail(header.file, header.find(key)->at, fmt::format("{} experts, but no key '{}'", experts, used));
  }
  const Value* per_layer = header.find(used);
  const bool varies = per_layer && per_layer->type == GGUF_TYPE_ARRAY;  // some layers may then use none
  require_layer_range(header, used, varies ? 0 : std::min<std::uint64_t>(experts, 1), experts);
  require_range(header, groups, 0, std::max<std::uint64_t>(experts, 1) - 1);
  const std::uint64_t group_count = count_at(header, groups).value_or(0);
  if (group_count < 2) return;
  if (experts % group_count != 0) {
    fail(header.file, header.find(groups)->at, fmt::format("{} experts in {} groups", experts, group_count));
  }
  require_range(header, arch + ".expert_group_used_count", 1, group_count - 1);
}

/// Where a model has a sliding window, llama.cpp wants a layer that uses it.
void check_sliding_window(const Header& header, const std::string& arch) {
  const std::string key = arch + ".attention.sliding_window";
  require_range(header, key, 0, kMaxSlidingWindow);
  const Value* pattern = header.find(key + "_pattern");
  if (!pattern || count_at(header, key).value_or(0) == 0) return;
  const auto none = [](const std::vector<std::uint32_t>& n) {
    return !n.empty() && std::all_of(n.begin(), n.end(), [](std::uint32_t x) { return x == 0; });
  };
  if ((pattern->type == GGUF_TYPE_UINT32 && pattern->bits == 1) || none(pattern->numbers)) {
    fail(header.file, pattern->at, "a sliding window, but no layer that slides");
  }
}

void check_epsilons(const Header& header, const std::string& arch) {
  for (const char* name : {"layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon"}) {
    const std::string key = fmt::format("{}.attention.{}", arch, name);
    const Value* value = header.find(key);
    if (!value || value->type != GGUF_TYPE_FLOAT32) continue;
    const auto epsilon = std::bit_cast<float>(static_cast<std::uint32_t>(value->bits));
    if (!(epsilon >= 0 && epsilon < 1)) {
      fail(header.file, value->at, fmt::format("key '{}' = {} outside [0, 1)", key, epsilon));
    }
  }
}

void check_rope(const Header& header, const std::string& arch) {
  const Value* scaling = header.find(arch + ".rope.scaling.type");
  constexpr std::array<std::string_view, 4> kKnown{"none", "linear", "yarn", "longrope"};
  if (scaling && scaling->type == GGUF_TYPE_STRING &&
      std::find(kKnown.begin(), kKnown.end(), scaling->text) == kKnown.end()) {
    fail(header.file, scaling->at, fmt::format("unknown rope scaling '{}'", shown(scaling->text)));
  }
}

/// Vectors and convolutions enter sums and products for which the CPU backend knows no other type than f32.
bool must_be_f32(const Tensor& tensor) {
  constexpr std::array<std::string_view, 4> kAlways{".ssm_conv1d", ".ssm_a", ".ssm_d", ".shortconv.conv"};
  const auto named = [&](std::string_view part) { return tensor.name.find(part) != std::string::npos; };
  return tensor.dimensions <= 1 || std::any_of(kAlways.begin(), kAlways.end(), named);
}

void check_weights(const Header& header) {
  for (const Tensor& tensor : header.tensors) {
    if (tensor.name.find("tid2eid") != std::string::npos) continue;  // a table of numbers
    const bool is_f32 = tensor.type == GGML_TYPE_F32;
    if (is_f32 || (!must_be_f32(tensor) && ggml_get_type_traits(tensor.type)->to_float)) continue;
    fail(header.file, tensor.at,
         fmt::format("tensor '{}' of type {}, with which llama.cpp cannot compute", shown(tensor.name),
                     ggml_type_name(tensor.type)));
  }
}

/// What llama.cpp asserts of a language model's sizes. The shapes of its tensors it compares with them by itself.
void check_model(const Header& header) {
  require_type(header, "split.no", GGUF_TYPE_UINT16);
  require_type(header, "split.count", GGUF_TYPE_UINT16);
  require_type(header, "general.architecture", GGUF_TYPE_STRING);
  const Value* architecture = header.find("general.architecture");
  if (!architecture) return;
  const std::string& arch = architecture->text;
  if (!count_at(header, arch + ".block_count")) return;
  require_range(header, arch + ".block_count", 1, kMaxLayers);
  require_range(header, arch + ".nextn_predict_layers", 0, *count_at(header, arch + ".block_count"));
  require_range(header, arch + ".context_length", 1, kMaxContext);
  check_sliding_window(header, arch);
  check_heads(header, arch);
  check_head_sizes(header, arch);
  check_experts(header, arch);
  check_epsilons(header, arch);
  check_rope(header, arch);
  check_weights(header);
}

}  // namespace

void check_gguf(const std::filesystem::path& file) {
  Reader in(file);
  const Header header = read_header(in);
  check_places(header);
  check_tokenizer(header);
  check_model(header);
}

}  // namespace tuiqiao

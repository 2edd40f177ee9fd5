#include "text/gguf_check.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tuiqiao/error.h"
#include "tuiqiao/text/llama.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(TUIQIAO_TEST_DATA) / "models";
constexpr std::array kNames{"tiny-llama", "tiny-gemma3", "tiny-mamba", "tiny-bpe"};

std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// A file of this process that goes away with the object.
struct ScratchFile {
  fs::path path = fs::temp_directory_path() / fmt::format("tuiqiao-gguf-check-{}.gguf", getpid());
  ~ScratchFile() { fs::remove(path); }
};

// ---- headers by hand ----

template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string text(const std::string& s) { return raw<std::uint64_t>(s.size()) + s; }

enum Kind : std::uint32_t { kU8 = 0, kU16 = 2, kU32 = 4, kI32 = 5, kF32 = 6, kString = 8, kArray = 9, kU64 = 10 };

std::string u32(std::uint32_t v) { return raw<std::uint32_t>(kU32) + raw(v); }
std::string f32(float v) { return raw<std::uint32_t>(kF32) + raw(v); }
std::string str(const std::string& v) { return raw<std::uint32_t>(kString) + text(v); }
std::string array(Kind element, std::uint64_t count, const std::string& elements) {
  return raw<std::uint32_t>(kArray) + raw<std::uint32_t>(element) + raw(count) + elements;
}

/// A small file that passes, as parts which a test may spoil.
struct Parts {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::vector<std::pair<std::string, std::string>> pairs{
      {"general.architecture", str("llama")},
      {"llama.block_count", u32(1)},
      {"llama.context_length", u32(8)},
      {"llama.attention.layer_norm_rms_epsilon", f32(1e-5F)},
      {"tokenizer.ggml.model", str("llama")},
      {"tokenizer.ggml.tokens", array(kString, 2, text("a") + text("b"))},
      {"tokenizer.ggml.scores", array(kF32, 2, raw(0.F) + raw(0.F))},
      {"tokenizer.ggml.token_type", array(kI32, 2, raw(1) + raw(1))},
      {"tokenizer.ggml.bos_token_id", u32(0)},
  };
  struct Info {
    std::string name;
    std::vector<std::int64_t> shape;
    std::uint32_t type = 0;
    std::uint64_t offset = 0;
  };
  std::vector<Info> tensors{{"token_embd.weight", {8, 2}, 0, 0}, {"output_norm.weight", {8}, 0, 64}};
  std::int64_t extra_tensors = 0, extra_pairs = 0;  // claimed, but not there
  std::size_t data = 96, alignment = 32;

  void set(const std::string& key, const std::string& value) {
    const auto same = [&](const auto& pair) { return pair.first == key; };
    const auto it = std::find_if(pairs.begin(), pairs.end(), same);
    if (it == pairs.end()) {
      pairs.emplace_back(key, value);
    } else {
      it->second = value;
    }
  }
  void drop(const std::string& key) {
    std::erase_if(pairs, [&](const auto& pair) { return pair.first == key; });
  }
  std::string bytes() const {
    std::string s = magic + raw(version) + raw(static_cast<std::int64_t>(tensors.size()) + extra_tensors) +
                    raw(static_cast<std::int64_t>(pairs.size()) + extra_pairs);
    for (const auto& [key, value] : pairs) s += text(key) + value;
    for (const Info& t : tensors) {
      s += text(t.name) + raw(static_cast<std::uint32_t>(t.shape.size()));
      for (const std::int64_t n : t.shape) s += raw(n);
      s += raw(t.type) + raw(t.offset);
    }
    s.resize((s.size() + alignment - 1) / alignment * alignment);
    return s + std::string(data, '\0');
  }
};

std::string message_of(const std::string& bytes) {
  const ScratchFile file;
  write_file(file.path, bytes);
  try {
    check_gguf(file.path);
  } catch (const Error& error) {
    const std::string what = error.what(), begin = file.path.string() + ": ";
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    return what.starts_with(begin) ? what.substr(begin.size()) : "no file name: " + what;
  }
  return "passes";
}

TEST(GgufCheck, SoundFilesPass) {
  for (const char* name : kNames) EXPECT_NO_THROW(check_gguf(kModels / (std::string(name) + ".gguf"))) << name;
  EXPECT_EQ(message_of(Parts{}.bytes()), "passes");
  Parts without_tensors;
  without_tensors.tensors.clear();
  without_tensors.data = 0;
  EXPECT_EQ(message_of(without_tensors.bytes()), "passes");
  Parts matrices_only;  // not of a language model: no rules on its types
  matrices_only.pairs.clear();
  matrices_only.tensors = {{"m", {4}, 26, 0}};
  EXPECT_EQ(message_of(matrices_only.bytes()), "passes");
}

TEST(GgufCheck, WhatIsNoGgufFile) {
  const auto message = [](const fs::path& file) {
    try {
      check_gguf(file);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("passes");
  };
  EXPECT_EQ(message("/nowhere/model.gguf"), "/nowhere/model.gguf: no such file");
  EXPECT_EQ(message(kModels), kModels.string() + ": not a GGUF file: not a regular file");
  EXPECT_EQ(message_of(""), "not a GGUF file: 0 bytes");
  EXPECT_EQ(message_of("GG"), "not a GGUF file: 2 bytes");
  EXPECT_EQ(message_of("PK\3\4 a zip archive"), "not a GGUF file: it does not begin with 'GGUF'");
  EXPECT_EQ(message_of("GGUF"), "damaged at byte 4: the version of 4 bytes ends beyond the file's 4");
}

struct Rule {
  std::function<void(Parts&)> spoil;
  std::string message;
};

TEST(GgufCheck, EachRuleHasItsMessage) {
  const std::string many = array(kString, 3, text("a") + text("b") + text("a"));
  const std::vector<Rule> rules{
      {[](Parts& p) { p.version = 1; }, "GGUF version 1, outside [2, 3]"},
      {[](Parts& p) { p.version = 0x03000000; }, "written in big-endian order"},
      {[](Parts& p) { p.extra_tensors = -3; }, "18446744073709551615 tensors, more than the file holds"},
      {[](Parts& p) { p.extra_pairs = 1LL << 40; }, " keys, more than the file holds"},
      {[](Parts& p) { p.extra_pairs = 1; }, "a tensor's name of 562949953421312 bytes ends beyond the file's "},
      {[](Parts& p) { p.set("", u32(0)); }, "a key of 0 bytes, outside [1, 65535]"},
      {[](Parts& p) { p.set(std::string(70000, 'k'), u32(0)); }, "a key of 70000 bytes, outside [1, 65535]"},
      {[](Parts& p) { p.set(std::string("k\0", 2), u32(0)); }, "key 'k?' has a zero byte"},
      {[](Parts& p) { p.set("k", raw<std::uint32_t>(13)); }, "unknown value type 13"},
      {[](Parts& p) { p.set("k", array(kArray, 1, raw<std::uint32_t>(kU8))); }, "key 'k' is an array of arrays"},
      {[](Parts& p) { p.set("k", array(kU64, 1ULL << 61, "")); },
       "key 'k' has 2305843009213693952 elements, more than"},
      {[](Parts& p) { p.set("k", array(kString, 1ULL << 30, "")); }, "key 'k' has 1073741824 elements, more than"},
      {[](Parts& p) { p.set("k", raw<std::uint32_t>(kString) + raw(~0ULL)); },
       "a string of 18446744073709551615 bytes"},
      {[](Parts& p) { p.pairs.push_back(p.pairs[1]); }, "key 'llama.block_count' twice"},
      {[](Parts& p) { p.set("general.alignment", raw<std::uint32_t>(kU64) + raw(32ULL)); },
       "key 'general.alignment' is of type u64, not u32"},
      {[](Parts& p) { p.set("general.alignment", u32(0)); }, "alignment 0 is no power of two"},
      {[](Parts& p) { p.set("general.alignment", u32(48)); }, "alignment 48 is no power of two"},
      {[](Parts& p) {
         p.set("general.alignment", u32(8));
         for (p.alignment = 8; p.bytes().size() % 32 == 0;)
           p.set("pad", str(std::string(p.pairs.size(), ' '))),
               p.pairs.emplace_back(std::string(p.pairs.size(), 'x'), u32(0));
       },
       "no multiple of 32"},
      {[](Parts& p) { p.tensors[0].name = std::string(64, 't'); }, "a tensor's name of 64 bytes, 64 or more"},
      {[](Parts& p) { p.tensors[0].name = std::string("t\0", 2); }, "tensor 't?' has a zero byte in its name"},
      {[](Parts& p) { p.tensors[1].name = p.tensors[0].name; }, "tensor 'token_embd.weight' twice"},
      {[](Parts& p) {
         p.tensors[0].shape = {1, 1, 1, 1, 1};
       },
       "tensor 'token_embd.weight' has 5 dimensions, more than 4"},
      {[](Parts& p) {
         p.tensors[0].shape = {8, 0};
       },
       "tensor 'token_embd.weight' has a dimension of 0"},
      {[](Parts& p) {
         p.tensors[0].shape = {8, -2};
       },
       "tensor 'token_embd.weight' has a dimension of -2"},
      {[](Parts& p) {
         p.tensors[0].shape = {1LL << 40, 1LL << 40};
       },
       "tensor 'token_embd.weight' has a dimension of"},
      {[](Parts& p) {
         p.tensors[0].shape = {1LL << 40, 1LL << 20};
       },
       "tensor 'token_embd.weight' is larger than the file"},
      {[](Parts& p) { p.tensors[0].type = 9999; }, "tensor 'token_embd.weight' has the unknown type 9999"},
      {[](Parts& p) { p.tensors[0].type = 4; },
       "tensor 'token_embd.weight' has the unknown type 4"},  // q4_2, long gone
      {[](Parts& p) { p.tensors[0].type = 8; }, "rows of 8 elements, no multiple of the 32 of a block of q8_0"},
      {[](Parts& p) { p.tensors[1].offset = 32; }, "tensor 'output_norm.weight' has offset 32, expected 64"},
      {[](Parts& p) { p.data = 95; }, "beyond the file's "},
      {[](Parts& p) { p.tensors[0].type = 26; }, "tensor 'token_embd.weight' of type i32, with which llama.cpp cannot"},
      {[](Parts& p) { p.tensors[1].type = 30; },
       "tensor 'output_norm.weight' of type bf16, with which llama.cpp cannot"},
      {[](Parts& p) { p.drop("tokenizer.ggml.tokens"); }, "a tokenizer without tokenizer.ggml.tokens"},
      {[](Parts& p) { p.set("tokenizer.ggml.model", u32(1)); }, "key 'tokenizer.ggml.model' is of type u32, not str"},
      {[](Parts& p) { p.set("tokenizer.ggml.tokens", u32(1)); }, "key 'tokenizer.ggml.tokens' is no array of strings"},
      {[](Parts& p) { p.set("tokenizer.ggml.tokens", array(kString, 0, "")); }, "a tokenizer without tokens"},
      {[&](Parts& p) { p.set("tokenizer.ggml.tokens", many); }, "token 'a' twice"},
      {[](Parts& p) { p.set("tokenizer.ggml.tokens", array(kString, 2, text("a") + text(std::string("a\0b", 3)))); },
       "token 'a' twice"},  // llama.cpp reads up to the zero
      {[](Parts& p) { p.set("tokenizer.ggml.tokens", array(kString, 2, text("[EMPTY_1]") + text(""))); },
       "token '[EMPTY_1]' twice"},
      {[](Parts& p) { p.set("tokenizer.ggml.scores", array(kF32, 1, raw(0.F))); },
       "key 'tokenizer.ggml.scores' has 1 elements for 2 tokens"},
      {[](Parts& p) { p.set("tokenizer.ggml.scores", str("0 0")); },
       "key 'tokenizer.ggml.scores' is no array of numbers"},
      {[](Parts& p) { p.set("tokenizer.ggml.token_type", array(kF32, 2, raw(1.F) + raw(1.F))); },
       "key 'tokenizer.ggml.token_type' is no array of numbers"},
      {[](Parts& p) { p.set("tokenizer.ggml.merges", array(kU8, 1, "m")); },
       "key 'tokenizer.ggml.merges' is no array of strings"},
      {[](Parts& p) { p.set("tokenizer.ggml.bos_token_id", u32(2)); },
       "key 'tokenizer.ggml.bos_token_id' = 2 outside [0, 1]"},
      {[](Parts& p) { p.set("split.no", u32(0)); }, "key 'split.no' is of type u32, not u16"},
      {[](Parts& p) { p.set("llama.block_count", u32(0)); }, "key 'llama.block_count' = 0 outside [1, 512]"},
      {[](Parts& p) { p.set("llama.block_count", u32(513)); }, "key 'llama.block_count' = 513 outside [1, 512]"},
      {[](Parts& p) { p.set("llama.nextn_predict_layers", u32(2)); },
       "'llama.nextn_predict_layers' = 2 outside [0, 1]"},
      {[](Parts& p) { p.set("llama.context_length", u32(1U << 31)); },
       "'llama.context_length' = 2147483648 outside [1,"},
      {[](Parts& p) { p.set("llama.context_length", u32(1U << 28)); },
       "'llama.context_length' = 268435456 outside [1, 16777216]"},
      {[](Parts& p) { p.set("llama.attention.sliding_window", u32(~0U)); }, "sliding_window' = 4294967295 outside"},
      {[](Parts& p) { p.set("llama.expert_count", u32(2000)); }, "key 'llama.expert_count' = 2000 outside [0, 1024]"},
      {[](Parts& p) { p.set("llama.expert_used_count", u32(1)); }, "key 'llama.expert_used_count' = 1 outside [0, 0]"},
      {[](Parts& p) { p.set("llama.attention.layer_norm_rms_epsilon", f32(-1)); }, "= -1 outside [0, 1)"},
      {[](Parts& p) { p.set("llama.expert_count", u32(4)); }, "4 experts, but no key 'llama.expert_used_count'"},
      {[](Parts& p) {
         p.set("llama.expert_count", u32(4));
         p.set("llama.expert_used_count", array(kI32, 2, raw(2) + raw(5)));
       },
       "key 'llama.expert_used_count' holds 5, outside [0, 4]"},
      {[](Parts& p) {
         p.set("llama.expert_count", u32(4));
         p.set("llama.expert_used_count", u32(1));
         p.set("llama.expert_group_count", u32(3));
       },
       "4 experts in 3 groups"},
      {[](Parts& p) { p.set("llama.attention.head_count_kv", u32(1U << 28)); }, "= 268435456 outside [0, 65535]"},
      {[](Parts& p) {
         p.set("llama.attention.head_count", u32(6));
         p.set("llama.attention.head_count_kv", u32(4));
       },
       "6 heads share 4 keys"},
      {[](Parts& p) {
         p.set("llama.embedding_length", u32(8));
         p.set("llama.attention.head_count", u32(2));
         p.set("llama.attention.key_length", u32(2));
       },
       "heads with keys of 2, values of 4 and 2 rotated: llama needs them equal"},
      {[](Parts& p) {
         p.set("llama.embedding_length", u32(10));
         p.set("llama.attention.head_count", u32(2));
         p.set("llama.rope.dimension_count", u32(5));
       },
       "key 'llama.rope.dimension_count' = 5 is odd"},
      {[](Parts& p) {
         p.set("llama.embedding_length", u32(8));
         p.set("llama.attention.head_count", u32(2));
         p.set("llama.rope.dimension_count", u32(6));
       },
       "key 'llama.rope.dimension_count' = 6 outside [0, 4]"},
      {[](Parts& p) {
         p.set("llama.attention.sliding_window", u32(4));
         p.set("llama.attention.sliding_window_pattern", u32(1));
       },
       "a sliding window, but no layer that slides"},
      {[](Parts& p) { p.set("llama.rope.scaling.type", str("rubber")); }, "unknown rope scaling 'rubber'"},
  };
  for (const Rule& rule : rules) {
    Parts parts;
    rule.spoil(parts);
    const std::string message = message_of(parts.bytes());
    EXPECT_TRUE(message.starts_with("damaged at byte ")) << message;
    EXPECT_NE(message.find(rule.message), std::string::npos) << "expected: " << rule.message << "\ngot: " << message;
  }
}

TEST(GgufCheck, EveryTruncationIsSeen) {
  const std::string whole = Parts{}.bytes();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(message_of(whole.substr(0, size)), "passes") << size << " of " << whole.size();
  }
}

TEST(GgufCheck, NamesOutOfTheFileStayOnOneLine) {
  Parts parts;
  parts.set("k\n\033[31m", array(kArray, 0, ""));
  EXPECT_NE(message_of(parts.bytes()).find("key 'k??[31m' is an array of arrays"), std::string::npos);
}

// ---- random damage ----

/// Where the tensors' infos begin and end, found by their first name and by what the generator writes there.
struct Regions {
  std::size_t infos, end;
};

Regions regions_of(const std::string& model) {
  const std::size_t first = model.find("token_embd.weight"), last = model.rfind(".weight");
  return {first - 8, last + 7 + 4 + 16 + 4 + 8};
}

/// Half of the damage goes to the sizes at the front and to the tensors' infos, which are small beside the vocabulary.
std::size_t place(const Regions& regions, std::mt19937_64& random) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  switch (below(4)) {
    case 0:
      return below(900);
    case 1:
      return regions.infos + below(regions.end - regions.infos);
    default:
      return below(regions.end);
  }
}

std::string damaged(std::string bytes, const Regions& regions, std::mt19937_64& random) {
  const std::uint64_t kind = random() % 10, times = 1 + random() % 3;
  if (kind == 0) return bytes.substr(0, place(regions, random));
  const std::vector<std::uint64_t> values{0, 1, 2, 3, 16, 1ULL << 31, 1ULL << 63, ~0ULL, random(), random() % 64};
  for (std::uint64_t i = 0; i < times; ++i) {
    const std::size_t at = place(regions, random);
    if (kind <= 4) {
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
    } else if (kind == 5) {
      bytes[at] = static_cast<char>(random());
    } else {
      const std::uint64_t value = values[random() % values.size()];
      std::memcpy(bytes.data() + at, &value, std::min<std::size_t>(kind < 8 ? 4 : 8, bytes.size() - at));
    }
  }
  return bytes;
}

/// Loads the file and lets it read three tokens. Says how far it came.
int attempt(const fs::path& file) {
  try {
    check_gguf(file);
  } catch (const Error&) {
    return 0;
  }
  try {
    const LlamaModel model(file);
    LlamaDecoderOptions options;
    options.window = 64;
    options.threads = 1;
    LlamaDecoder decoder(model, options);
    const Branch branch = decoder.open();
    const Token last = model.vocabulary().size() - 1;
    const std::vector<Token> tokens{std::min(5, last), std::min(7, last), last};
    decoder.extend(Extension{branch, tokens, Rows::last});
  } catch (const Error&) {
    return 1;
  } catch (const std::invalid_argument&) {
    return 1;
  }
  return 2;
}

struct Shared {
  std::atomic<std::int64_t> done;         // attempts that came back
  std::atomic<std::int64_t> outcomes[3];  // refused by the check, refused by llama.cpp, read
};

/// Runs attempts [shared.done, count) in a child; its exit status tells what became of the one at shared.done.
int run_child(Shared& shared, std::int64_t count, const std::function<int(std::int64_t)>& attempt_at) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("GGML_NO_BACKTRACE", "1", 1);
    while (shared.done < count) {
      alarm(60);
      shared.outcomes[attempt_at(shared.done)]++;
      shared.done++;
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

class GgufDamage : public testing::TestWithParam<const char*> {};

TEST_P(GgufDamage, NeverAborts) {
  const char* wanted = std::getenv("TUIQIAO_DAMAGES");  // to search longer, with other seeds
  const char* seed = std::getenv("TUIQIAO_SEED");
  const std::int64_t count = wanted ? std::atoll(wanted) : 1000;
  const std::uint64_t first = seed ? std::strtoull(seed, nullptr, 10) : 0;
  const std::string model = read_file(kModels / (std::string(GetParam()) + ".gguf"));
  const Regions regions = regions_of(model);
  ASSERT_EQ(model.substr(regions.infos + 8, 10), "token_embd");
  const ScratchFile file;
  const auto attempt_at = [&](std::int64_t i) {
    std::mt19937_64 random(first + static_cast<std::uint64_t>(i));
    write_file(file.path, damaged(model, regions, random));
    return attempt(file.path);
  };
  auto& shared =
      *static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  while (shared.done < count) {
    const int status = run_child(shared, count, attempt_at);
    if (shared.done >= count) break;
    ADD_FAILURE() << "seed " << first + static_cast<std::uint64_t>(shared.done) << ": "
                  << (WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "ended");
    if (std::getenv("TUIQIAO_KEEP")) {
      fs::copy_file(file.path,
                    fmt::format("{}/{}-{}.gguf", std::getenv("TUIQIAO_KEEP"), GetParam(), shared.done.load()),
                    fs::copy_options::overwrite_existing);
    }
    shared.done++;
  }
  std::int64_t loaded = shared.outcomes[2];
  RecordProperty("refused", static_cast<int>(shared.outcomes[0]));
  RecordProperty("failed", static_cast<int>(shared.outcomes[1]));
  RecordProperty("read", static_cast<int>(loaded));
  EXPECT_GT(shared.outcomes[0], count / 3);  // or the damage was too mild to test anything
  EXPECT_GT(loaded, count / 50);
  munmap(&shared, sizeof(Shared));
}

INSTANTIATE_TEST_SUITE_P(Models, GgufDamage, testing::ValuesIn(kNames));

}  // namespace
}  // namespace tuiqiao

#include "text/gguf_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

std::string model(const std::string& name) { return TUIQIAO_TEST_DATA "/models/" + name + ".gguf"; }

TEST(GgufRows, ReadsTheOutputLayer) {
  for (const char* name : {"tiny-llama", "tiny-gemma3", "tiny-bpe", "tiny-mamba"}) {
    const OutputHead head = read_gguf_head(model(name));
    EXPECT_EQ(static_cast<std::int64_t>(head.rows.size()), head.classes * head.columns) << name;
    EXPECT_GT(head.classes, 100) << name;
    EXPECT_EQ(static_cast<std::int64_t>(head.gain.size()), head.columns) << name;
    EXPECT_EQ(head.norm, HeadNorm::rms) << name;
    EXPECT_TRUE(std::all_of(head.rows.begin(), head.rows.end(), [](float x) { return std::isfinite(x); })) << name;
    const OutputHead embedding = read_gguf_head(model(name), "token_embd.weight");
    EXPECT_EQ(embedding.classes, head.classes) << name;
    EXPECT_EQ(embedding.tensor, "token_embd.weight");
  }
  EXPECT_TRUE(is_gguf(model("tiny-llama")));
  EXPECT_FALSE(is_gguf(TUIQIAO_TEST_DATA "/topk_cases.json"));
}

TEST(GgufRows, RefusesWhatIsNoOutputLayer) {
  EXPECT_THROW(read_gguf_head(model("tiny-llama"), "absent.weight"), Error);
  EXPECT_THROW(read_gguf_head(model("absent")), Error);
  EXPECT_THROW(read_gguf_head(TUIQIAO_TEST_DATA "/topk_cases.json"), Error);
}

}  // namespace
}  // namespace tuiqiao

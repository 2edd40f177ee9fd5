#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_tokenizer.h"
#include "tuiqiao/text/healing.h"

namespace tuiqiao {

/// A prompt without its last tokens, as HealMode::off, one and back have it.
struct RolledBack {
  std::vector<Token> kept, dropped;
  std::string bytes;  ///< that the dropped tokens spell
};

/// `keep_first`: the first token is never dropped.
inline RolledBack roll_back(ByteTokenizer& tokenizer, std::string_view prompt, const HealOptions& options,
                            bool keep_first) {
  RolledBack rolled;
  if (!prompt.empty()) rolled.kept = tokenizer.spell(tokenizer.lead() + std::string(prompt));
  std::size_t drop = 0;
  if (options.mode == HealMode::one) drop = 1;
  if (options.mode == HealMode::back) drop = static_cast<std::size_t>(options.back);
  drop = std::min(drop, rolled.kept.size() - (keep_first && !rolled.kept.empty() ? 1 : 0));
  const auto cut = rolled.kept.end() - static_cast<std::ptrdiff_t>(drop);
  rolled.dropped.assign(cut, rolled.kept.end());
  rolled.kept.erase(cut, rolled.kept.end());
  rolled.bytes = tokenizer.vocabulary().detokenize(rolled.dropped);
  return rolled;
}

}  // namespace tuiqiao

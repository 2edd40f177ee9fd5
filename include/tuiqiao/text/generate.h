#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string_view>

#include "tuiqiao/text/decoder.h"

namespace tuiqiao {

struct GenerateOptions {
  /// Most tokens to add. 0 for none.
  int max_tokens = 128;
  /// Tokens are drawn from softmax(log p / temperature); 0 takes the most probable (of equals the lowest id).
  double temperature = 0;
  /// Of the draws; the same seed gives the same text.
  std::uint64_t seed = 0;
  /// Ends the text after a token, once the text so far satisfies it; never called if empty.
  std::function<bool(std::string_view text)> stop_when;
  /// Asked before each token; ends the text early.
  std::stop_token stop;
};

/// A chosen token and the row it was chosen from, which lives until the decoder is extended.
struct Choice {
  Token token = 0;
  double logprob = 0;  ///< in nats, of the row as it is (without temperature)
  const Row* row = nullptr;
};

enum class Finish {
  end,      ///< the model ended the text (the ending token is not reported)
  stopped,  ///< stop_when or stop
  length,   ///< max_tokens or the window
};
std::string_view name(Finish finish);

/// Picks a token from a row. `uniform` in [0, 1) decides where temperature > 0.
/// Throws: std::invalid_argument on a negative or not finite temperature, or a row without a possible token.
/// Cost: one pass over the row for temperature 0, else two.
Token choose(const Row& row, double temperature, double uniform);

/// Goes on from a branch that has a row, token by token; `chosen` hears of each before the branch is extended with it.
/// The last token reported has not been evaluated.
/// Throws: what the decoder throws.
Finish generate(Decoder& decoder, Branch branch, const GenerateOptions& options,
                const std::function<void(const Choice&)>& chosen);

}  // namespace tuiqiao

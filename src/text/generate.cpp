#include "tuiqiao/text/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <string>

namespace tuiqiao {

std::string_view name(Finish finish) {
  switch (finish) {
    case Finish::end:
      return "end";
    case Finish::stopped:
      return "stopped";
    case Finish::length:
      return "length";
  }
  return "";
}

Token choose(const Row& row, double temperature, double uniform) {
  if (!(temperature >= 0) || std::isinf(temperature)) {
    throw std::invalid_argument(
        fmt::format("[choose] temperature = {} is not a finite number of at least 0", temperature));
  }
  const auto best = std::max_element(row.scores.begin(), row.scores.end());
  if (best == row.scores.end() || !std::isfinite(*best))
    throw std::invalid_argument("[choose] the row has no possible token");
  if (temperature == 0) return static_cast<Token>(best - row.scores.begin());

  const auto weight = [&](float score) { return std::exp((static_cast<double>(score) - *best) / temperature); };
  double total = 0;
  for (const float score : row.scores) total += weight(score);
  double left = uniform * total;
  Token last = 0;  // of non-zero weight: rounding may leave a little of `left` at the end
  for (std::size_t i = 0; i < row.scores.size(); ++i) {
    const double w = weight(row.scores[i]);
    if (w == 0) continue;
    last = static_cast<Token>(i);
    left -= w;
    if (left < 0) break;
  }
  return last;
}

Finish generate(Decoder& decoder, Branch branch, const GenerateOptions& options,
                const std::function<void(const Choice&)>& chosen) {
  const Vocabulary& vocabulary = decoder.vocabulary();
  std::mt19937_64 random(options.seed);
  std::string text;
  for (int count = 0; count < options.max_tokens; ++count) {
    if (options.stop.stop_requested()) return Finish::stopped;
    const Row row = decoder.row(branch);
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;
    const Token token = choose(row, options.temperature, uniform);
    if (vocabulary.ends(token)) return Finish::end;
    chosen({token, row[token], &row});
    if (options.stop_when) {
      text += vocabulary.bytes(token);
      if (options.stop_when(text)) return Finish::stopped;
    }
    if (count + 1 == options.max_tokens || decoder.length(branch) == decoder.window()) break;
    decoder.extend({branch, std::span(&token, 1), Rows::last});
  }
  return Finish::length;
}

}  // namespace tuiqiao

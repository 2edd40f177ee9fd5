#include "audit_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <unordered_map>

#include "parallel.h"
#include "text/utf8.h"

namespace tuiqiao::cli {

namespace {

constexpr double kNear = 1e-3;  // of a row's length
constexpr std::int64_t kPart = 1024;
constexpr std::string_view kAnchor = "\xC2\xAB";  // a text in front of a token's, for tokenizers that add a space

double distance(const float* a, const float* b, std::int64_t n) {
  double squares = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    const double d = static_cast<double>(a[j]) - static_cast<double>(b[j]);
    squares += d * d;
  }
  return std::sqrt(squares);
}

bool is_whole_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    if (c.state != Utf8Character::State::whole) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

/// Whether a control token is kept in reserve, as <unused7> and <|reserved_special_token_7|> are.
bool is_spare(const std::string& text) {
  return text.find("unused") != std::string::npos || text.find("reserved") != std::string::npos;
}

/// Whether a token's text becomes that token again, alone or behind other text.
bool comes_back(const Vocabulary& vocabulary, Token token, const std::vector<Token>& anchor) {
  const std::string text(vocabulary.bytes(token));
  if (vocabulary.tokenize(text) == std::vector<Token>{token}) return true;
  std::vector<Token> behind = anchor;
  behind.push_back(token);
  return vocabulary.tokenize(std::string(kAnchor) + text) == behind;
}

void add_words(std::vector<TokenFacts>& facts, const Vocabulary& vocabulary, const Progress& progress) {
  const std::vector<Token> anchor = vocabulary.tokenize(kAnchor);
  const auto count = static_cast<std::int64_t>(facts.size());
  constexpr std::int64_t kAtOnce = 16 * kPart;
  for (std::int64_t first = 0; first < count; first += kAtOnce) {
    parallel_for((std::min(kAtOnce, count - first) + kPart - 1) / kPart, [&](std::int64_t part) {
      const std::int64_t from = first + part * kPart;
      for (std::int64_t i = from; i < std::min(count, from + kPart); ++i) {
        TokenFacts& one = facts[static_cast<std::size_t>(i)];
        if (i >= vocabulary.size()) {
          one.category = TokenCategory::padding;
          one.must_not_win = true;
          continue;
        }
        const auto token = static_cast<Token>(i);
        const TokenKind kind = vocabulary.kind(token);
        const bool spells = kind == TokenKind::text || kind == TokenKind::byte;
        one.text = std::string(spells ? vocabulary.bytes(token) : vocabulary.name(token));
        if (kind == TokenKind::unused || (kind == TokenKind::control && is_spare(one.text))) {
          one.category = TokenCategory::unused;
          one.must_not_win = true;
        } else if (kind == TokenKind::control) {
          one.category = TokenCategory::special;
          one.must_not_win = !vocabulary.ends(token);
        } else if (!is_whole_utf8(one.text)) {
          one.category = TokenCategory::undecodeable;
        } else {
          one.category = comes_back(vocabulary, token, anchor) ? TokenCategory::ok : TokenCategory::unreachable;
        }
      }
    });
    progress.step("words", std::min(count, first + kAtOnce), count);
  }
}

void add_lengths(std::vector<TokenFacts>& facts, const OutputHead& head) {
  const std::vector<float> zero(static_cast<std::size_t>(head.columns), 0);
  parallel_for((head.classes + kPart - 1) / kPart, [&](std::int64_t part) {
    for (std::int64_t i = part * kPart; i < std::min(head.classes, (part + 1) * kPart); ++i)
      facts[static_cast<std::size_t>(i)].length =
          distance(head.rows.data() + i * head.columns, zero.data(), head.columns);
  });
  std::vector<double> lengths;
  for (const TokenFacts& one : facts) lengths.push_back(one.length);
  const auto middle = lengths.begin() + static_cast<std::ptrdiff_t>(lengths.size() / 2);
  std::nth_element(lengths.begin(), middle, lengths.end());
  for (TokenFacts& one : facts) one.near_zero = one.length <= kNear * *middle;
}

/// Equal rows by their bytes, near ones among neighbours in a few random directions.
void add_copies(std::vector<TokenFacts>& facts, const OutputHead& head) {
  constexpr std::size_t kDirections = 8, kMostNeighbours = 4000;
  const auto n = static_cast<std::size_t>(head.columns), count = facts.size();
  const auto row = [&](std::size_t i) { return head.rows.data() + i * n; };
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> directions(kDirections * n);
  for (float& x : directions) x = normal(random);
  for (std::size_t d = 0; d < kDirections; ++d) {
    float squares = 0;
    for (std::size_t j = 0; j < n; ++j) squares += directions[d * n + j] * directions[d * n + j];
    for (std::size_t j = 0; j < n; ++j) directions[d * n + j] /= std::sqrt(squares);
  }
  std::vector<std::array<double, kDirections>> parts(count);
  parallel_for((head.classes + kPart - 1) / kPart, [&](std::int64_t part) {
    const auto from = static_cast<std::size_t>(part * kPart);
    for (std::size_t i = from; i < std::min(count, from + static_cast<std::size_t>(kPart)); ++i) {
      for (std::size_t d = 0; d < kDirections; ++d) {
        double sum = 0;
        for (std::size_t j = 0; j < n; ++j)
          sum += static_cast<double>(row(i)[j]) * static_cast<double>(directions[d * n + j]);
        parts[i][d] = sum;
      }
    }
  });
  // Equal rows have equal parts: only the first of them is looked at further.
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return parts[a] != parts[b] ? parts[a] < parts[b] : a < b; });
  std::vector<std::size_t> firsts;
  for (std::size_t at = 0, run = 0; at < count; ++at) {  // run: where in `firsts` those of these parts begin
    const std::size_t i = order[at];
    if (at == 0 || parts[order[at - 1]] != parts[i]) run = firsts.size();
    const auto equal = std::find_if(firsts.begin() + static_cast<std::ptrdiff_t>(run), firsts.end(),
                                    [&](std::size_t f) { return std::equal(row(f), row(f) + n, row(i)); });
    if (equal == firsts.end()) {
      firsts.push_back(i);
    } else {
      facts[i].equal_to = static_cast<std::int64_t>(*equal);
    }
  }
  const std::size_t kinds = firsts.size();
  parallel_for((static_cast<std::int64_t>(kinds) + kPart - 1) / kPart, [&](std::int64_t part) {
    const auto from = static_cast<std::size_t>(part * kPart);
    for (std::size_t at = from; at < std::min(kinds, from + static_cast<std::size_t>(kPart)); ++at) {
      const std::size_t i = firsts[at];
      TokenFacts& one = facts[i];
      const double reach = kNear * one.length;
      const auto look = [&](std::size_t other) {
        bool may = true;
        for (std::size_t d = 1; d < kDirections && may; ++d) may = std::abs(parts[i][d] - parts[other][d]) <= reach;
        if (!may || distance(row(i), row(other), head.columns) >= reach) return;
        if (const auto id = static_cast<std::int64_t>(other); !one.near_to || id < *one.near_to) one.near_to = id;
      };
      for (std::size_t o = at; o-- > 0 && at - o < kMostNeighbours;) {
        if (parts[i][0] - parts[firsts[o]][0] > reach) break;
        look(firsts[o]);
      }
      for (std::size_t o = at + 1; o < kinds && o - at < kMostNeighbours; ++o) {
        if (parts[firsts[o]][0] - parts[i][0] > reach) break;
        look(firsts[o]);
      }
    }
  });
  for (TokenFacts& one : facts) {
    if (one.equal_to) one.near_to = facts[static_cast<std::size_t>(*one.equal_to)].near_to;
  }
}

void add_distances(std::vector<TokenFacts>& facts, const OutputHead& head, const std::vector<std::int64_t>& unused) {
  if (unused.empty()) return;
  std::vector<double> sum(static_cast<std::size_t>(head.columns), 0);
  for (const std::int64_t i : unused) {
    for (std::size_t j = 0; j < sum.size(); ++j)
      sum[j] += static_cast<double>(head.rows[static_cast<std::size_t>(i * head.columns) + j]);
  }
  std::vector<float> mean;
  for (const double s : sum) mean.push_back(static_cast<float>(s / static_cast<double>(unused.size())));
  for (std::int64_t i = 0; i < head.classes; ++i)
    facts[static_cast<std::size_t>(i)].unused_distance =
        distance(head.rows.data() + i * head.columns, mean.data(), head.columns);
}

}  // namespace

std::string_view name(TokenCategory category) {
  constexpr std::array<std::string_view, 6> kNames{"OK", "SPECIAL", "UNUSED", "UNDECODEABLE", "UNREACHABLE", "PADDING"};
  return kNames[static_cast<std::size_t>(category)];
}

TokenVerdict token_verdict_of(const ClassVerdict& verdict) {
  TokenVerdict made{verdict.i, verdict.verdict, verdict.margin, "", verdict.twin, verdict.lead};
  if (verdict.same_as) {
    made.certificate = "same_as";
    made.twin = verdict.same_as;
  } else if (!verdict.proof.empty()) {
    made.certificate = verdict.proof;
  } else if (!verdict.exact_z.empty()) {
    made.certificate = "exact";
  } else if (verdict.verdict != Verdict::unknown) {
    made.certificate = name(verdict.rule);
  }
  return made;
}

std::vector<TokenFacts> token_facts(const OutputHead& head, const Vocabulary* vocabulary,
                                    std::optional<std::int64_t> words, const std::vector<std::int64_t>& unused,
                                    const Progress& progress) {
  std::vector<TokenFacts> facts(static_cast<std::size_t>(head.classes));
  if (vocabulary) add_words(facts, *vocabulary, progress);
  for (std::int64_t i = words.value_or(head.classes); i < head.classes; ++i) {
    facts[static_cast<std::size_t>(i)].category = TokenCategory::padding;
    facts[static_cast<std::size_t>(i)].must_not_win = true;
  }
  add_lengths(facts, head);
  add_copies(facts, head);
  for (const std::int64_t i : unused) {
    TokenFacts& one = facts[static_cast<std::size_t>(i)];
    one.must_not_win = true;
    if (!one.category) one.category = TokenCategory::unused;
  }
  std::vector<std::int64_t> known = unused;
  for (std::int64_t i = 0; unused.empty() && i < head.classes; ++i) {
    const std::optional<TokenCategory>& category = facts[static_cast<std::size_t>(i)].category;
    if (category == TokenCategory::unused || category == TokenCategory::padding) known.push_back(i);
  }
  add_distances(facts, head, known);
  return facts;
}

}  // namespace tuiqiao::cli

#pragma once

#include <span>
#include <vector>

#include "tuiqiao/text/decoder.h"
#include "tuiqiao/text/pooling.h"

namespace tuiqiao {

/// Naive-Bayes context extension: n + 1 branches of another Decoder (one without context, one a context) shown as one.
/// Each extension goes to all of them in one batch, and the pooled row is the branch's row. The previous choice belongs
/// to a branch and is copied when it forks, so whatever is written for a Decoder works over many documents.
/// Threads: as Decoder; nothing else may use `inner`'s branches that were handed over.
/// Source: Scientific Spaces 9617; Su et al. (NAACL 2024).
class NbceDecoder final : public Decoder {
 public:
  /// Borrows `trunks` of `inner`: first the one without context, then one a context. `inner` must outlive this, which
  /// closes no branch when it goes: the trunks and what was forked of them and not closed live on in `inner`.
  /// Throws: std::invalid_argument on fewer than two trunks, a trunk that does not live, or options that Pooler
  /// refuses.
  NbceDecoder(Decoder& inner, std::span<const Branch> trunks, const PoolingOptions& options);

  /// The branch made of the trunks.
  static constexpr Branch trunk() { return 0; }
  int contexts() const { return static_cast<int>(contexts_); }

  const Vocabulary& vocabulary() const override { return inner_.vocabulary(); }
  /// As many groups of n + 1 as the inner decoder can keep.
  int max_branches() const override;
  int window() const override { return inner_.window(); }
  /// Of its longest inner branch.
  int length(Branch branch) const override;
  Branch fork(Branch branch) override { return fork_members(branch, &Decoder::fork); }
  Branch fork_briefly(Branch branch) override { return fork_members(branch, &Decoder::fork_briefly); }
  void close(Branch branch) override;
  using Decoder::extend;
  void extend(std::span<const Extension> extensions) override;
  std::span<const Row> rows(Branch branch) const override;

  /// What pooling found for each row that the latest extension left the branch.
  std::span<const PoolingResult> steps(Branch branch) const;
  /// Jensen-Shannon divergence (base 2, in [0, 1]) between the last row of the deciding context and the row without
  /// context: near 0 where the documents say nothing. Throws: as rows.
  double divergence_bits(Branch branch) const;
  /// Whether the last rows of all contexts lie within `bits` (Jensen-Shannon, base 2) of the deciding one.
  /// Cost: up to n passes over two rows, fewer where they differ: it ends at the first that does. Throws: as rows.
  bool contexts_agree(Branch branch, double bits) const;

 private:
  struct Group {
    std::vector<Branch> members;  // empty where no branch lives
    int previous = -1;            // context that decided the last row
    std::vector<std::vector<float>> scores;
    std::vector<Row> rows;
    std::vector<PoolingResult> steps;
  };
  const Group& group(Branch branch, const char* function) const;
  Branch fork_members(Branch branch, Branch (Decoder::*way)(Branch));

  Decoder& inner_;
  std::size_t contexts_;
  Pooler pooler_;
  std::vector<Group> groups_;
};

}  // namespace tuiqiao

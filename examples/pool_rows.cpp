// Pools rows of log-probabilities by hand, without any engine: one context is sure, one is not.
#include <cmath>
#include <cstdio>
#include <vector>

#include "tuiqiao/text/pooling.h"

int main() {
  const auto row = [](const std::vector<float>& scores) { return tuiqiao::Row{scores, tuiqiao::log_sum_exp(scores)}; };
  const std::vector<float> sure{0, 6, 0, 0}, unsure{2, 0, 1.5F, 1}, without{1, 1, 1, 1};

  const tuiqiao::Pooler pooler({});  // min_entropy, beta 0.25, eta 0.1, top-p 0.95
  std::vector<float> pooled(sure.size());
  const std::vector<tuiqiao::Row> contexts{row(unsure), row(sure)};
  const auto result = pooler.pool(contexts, row(without), -1, pooled);

  std::printf("context %d decides:", result.context);
  for (const float log_p : pooled) std::printf(" %.3f", std::exp(static_cast<double>(log_p)));
  std::printf("\n");
  return result.context == 1 && pooled[1] > -0.01F ? 0 : 1;
}

#include "parallel.h"

#include <cblas.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "serial_blas.h"

namespace tuiqiao {
namespace {

TEST(ParallelFor, CallsEachIndexOnce) {
  for (const int n : {0, 1, 2, 7, 1000}) {
    std::vector<int> calls(static_cast<std::size_t>(n), 0);
    parallel_for(n, [&](std::int64_t i) { ++calls[static_cast<std::size_t>(i)]; });
    EXPECT_EQ(calls, std::vector<int>(static_cast<std::size_t>(n), 1));
  }
}

TEST(ParallelFor, ThrowsWhatTheLeastIndexThrew) {
  for (int round = 0; round < 200; ++round) {
    try {
      parallel_for(64, [](std::int64_t i) {
        if (i >= 5) throw std::runtime_error(std::to_string(i));
      });
      ADD_FAILURE();
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "5");
    }
  }
}

TEST(ParallelFor, ThrowsWhatABodyThrewAfterAllOthersRan) {
  std::atomic<int> ran = 0;
  EXPECT_THROW(parallel_for(100,
                            [&](std::int64_t i) {
                              ++ran;
                              if (i == 3) throw std::runtime_error("three");
                            }),
               std::runtime_error);
  EXPECT_EQ(ran, 100);
}

#ifdef OPENBLAS_VERSION
TEST(SerialBlas, EndsWithTheLastOfThoseThatOverlap) {
  const int before = openblas_get_num_threads();
  openblas_set_num_threads(3);
  auto first = std::make_unique<SerialBlas>(), second = std::make_unique<SerialBlas>();
  EXPECT_EQ(openblas_get_num_threads(), 1);
  first.reset();
  EXPECT_EQ(openblas_get_num_threads(), 1);
  second.reset();
  EXPECT_EQ(openblas_get_num_threads(), 3);
  openblas_set_num_threads(before);
}
#endif

}  // namespace
}  // namespace tuiqiao

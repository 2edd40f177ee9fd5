#include "model_file.h"

#include <fmt/format.h>

#include <cstdlib>

#include "tuiqiao/error.h"

namespace tuiqiao::cli {

namespace fs = std::filesystem;

fs::path default_model() {
  if (const char* model = std::getenv("TUIQIAO_MODEL"); model && *model) return model;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path base = cache && *cache ? fs::path(cache) : fs::path(home ? home : ".") / ".cache";
  return base / "tuiqiao" / "models" / "gemma-3-270m-q4_k_m.gguf";
}

fs::path model_file(const std::string& named) {
  if (!named.empty()) return named;
  fs::path model = default_model();
  if (!fs::exists(model))
    throw Error(fmt::format("no model: give one by -m or TUIQIAO_MODEL, or run scripts/bootstrap ({} is absent)",
                            model.string()));
  return model;
}

}  // namespace tuiqiao::cli
